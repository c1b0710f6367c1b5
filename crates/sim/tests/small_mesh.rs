//! The program as it is called: a small mesh goes through every kind of change, and one seed gives one result.

use std::process::Command;

fn run(arguments: &str) -> (bool, String) {
    let output =
        Command::new(env!("CARGO_BIN_EXE_sim")).args(arguments.split(' ')).output().expect("sim starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.success(), format!("{text}{}", String::from_utf8_lossy(&output.stderr)))
}

#[test]
fn a_small_mesh_with_a_liar_and_loss_converges_after_each_change() {
    let (done, said) = run("--nodes 20 --degree 3 --seed 7 --loss 10 --liars 1 --changes 1 --steady 5");
    assert!(done, "{said}");
}

#[test]
fn output_for_programs_is_json() {
    let (done, said) = run("--nodes 10 --degree 3 --changes 1 --steady 1 --json");
    assert!(done, "{said}");
    let value: serde_json::Value = serde_json::from_str(&said).unwrap_or_else(|e| panic!("{e}: {said}"));
    assert!(value.is_object(), "{said}");
}
