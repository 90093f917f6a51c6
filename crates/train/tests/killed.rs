//! A run that is killed with no chance to clean up, at any instant, ends with the bits of one that was not.

mod net;

use net::{contents, scratch, train};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const DIR: &str = "GRADUS_TEST_RUN";

#[test]
#[ignore = "the process that the test below starts and kills"]
fn child() {
    let Ok(dir) = std::env::var(DIR) else { return };
    train(Path::new(&dir), None).unwrap();
}

fn start(dir: &Path) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["child", "--exact", "--ignored"]).env(DIR, dir).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap()
}

#[test]
fn a_run_killed_at_many_instants_ends_with_the_same_bits() {
    let whole = scratch("never-killed");
    assert!(start(&whole).wait().unwrap().success());
    let expected = contents(&whole);
    assert!(expected.iter().any(|(name, _)| name == "checkpoints/step-0000000020/state.json"));

    let dir = scratch("killed");
    let mut kills = 0;
    // Each life is a little longer than the one before, so that sooner or later the run comes to its end.
    for life in 1.. {
        let mut run = start(&dir);
        std::thread::sleep(Duration::from_millis(2 * life));
        if let Some(status) = run.try_wait().unwrap() {
            assert!(status.success(), "life {life} after {kills} kills: resuming failed");
            break;
        }
        run.kill().unwrap(); // SIGKILL
        run.wait().unwrap();
        kills += 1;
    }
    println!("killed {kills} times");
    assert_eq!(contents(&dir), expected);
    [dir, whole].iter().for_each(|d| std::fs::remove_dir_all(d).unwrap());
}
