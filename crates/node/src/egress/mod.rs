//! Policy check, name resolution and dialling of targets.
