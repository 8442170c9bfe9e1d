//! The help texts. The measurements are tested against a running server, in `tests/cli/measuring.rs`.

use std::process::Command;

#[test]
fn every_measurement_is_in_the_help() {
    let output = Command::new(env!("CARGO_BIN_EXE_landfall-bench"))
        .arg("--help")
        .output()
        .expect("landfall-bench runs");
    assert!(output.status.success(), "{output:?}");
    let help = String::from_utf8(output.stdout).expect("text");
    for command in ["upload", "slow", "seed"] {
        assert!(
            help.contains(&format!("\n  {command} ")),
            "{command}: {help}"
        );
    }
}
