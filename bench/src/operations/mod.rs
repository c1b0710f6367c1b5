//! The operations, each ready to be done again and again.

mod codec;
mod graph;
mod relay;

use std::io;

/// One operation, with everything that it needs.
pub type Job = Box<dyn FnMut()>;

/// An operation by name.
#[derive(Debug, Clone, Copy)]
pub struct Operation {
    /// What it is called in files and on the command line
    pub name: &'static str,
    /// How often it is done for a count of instructions: enough that nothing else weighs
    pub times: u32,
    make: fn() -> io::Result<Job>,
}

impl Operation {
    /// Prepares it. What is returned does it once a call.
    pub fn prepare(&self) -> io::Result<Job> {
        (self.make)()
    }
}

/// All of them.
pub const OPERATIONS: [Operation; 9] = [
    Operation { name: "encode a ping", times: 2000, make: || codec::encoding(codec::ping()) },
    Operation { name: "decode a ping", times: 2000, make: || codec::decoding(&codec::ping()) },
    Operation {
        name: "encode a circuit's opening",
        times: 1000,
        make: || codec::encoding(codec::opening()?),
    },
    Operation {
        name: "decode a circuit's opening",
        times: 1000,
        make: || codec::decoding(&codec::opening()?),
    },
    Operation { name: "swap 64 labels", times: 2000, make: || Ok(relay::swaps()) },
    Operation { name: "relay 32 packets of 64 B", times: 200, make: || relay::passage(64) },
    Operation { name: "relay 32 packets of 1200 B", times: 200, make: || relay::passage(1200) },
    Operation { name: "shortest paths of 1000 nodes", times: 20, make: || Ok(graph::shortest_paths(1000)) },
    Operation { name: "shortest paths of 10000 nodes", times: 4, make: || Ok(graph::shortest_paths(10_000)) },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_can_be_done_again_and_again() {
        for operation in OPERATIONS {
            let mut job = operation.prepare().unwrap_or_else(|e| panic!("{}: {e}", operation.name));
            (0..3).for_each(|_| job());
        }
    }
}
