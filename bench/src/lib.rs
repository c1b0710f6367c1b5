//! Operations whose cost must not creep: timed by `benches/micro.rs`, counted by `bench/instructions`.

pub mod operations;
