//! Interrupted runs: resumed, they end with the same bits; damage is found; what does not fit is refused.

mod net;

use gradus_core::Error;
use gradus_nn::Module;
use gradus_optim::Sgd;
use gradus_train::{Checkpoints, Progress, Trainer};
use net::{Net, bits, contents, cpu, data, scratch, step, train, trainer};
use std::path::{Path, PathBuf};

/// The names of the checkpoints in a directory, sorted.
fn checkpoints(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir.join("checkpoints")).unwrap();
    let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn text(error: Error) -> String {
    error.to_string()
}

#[test]
fn interrupted_before_any_pass_a_run_ends_with_the_same_bits() {
    let whole = scratch("whole");
    let expected = bits(train(&whole, None).unwrap().model());
    for fail_at in [0, 1, 2, 5, 9, 10, 19] {
        let dir = scratch(&format!("interrupted-{fail_at}"));
        assert!(text(train(&dir, Some(fail_at)).err().unwrap()).contains("the power went out"));
        let resumed = train(&dir, None).unwrap();
        assert_eq!(bits(resumed.model()), expected, "interrupted before pass {fail_at}");
        assert_eq!(contents(&dir), contents(&whole), "interrupted before pass {fail_at}");
        std::fs::remove_dir_all(dir).unwrap();
    }
    // Again and again: 4 passes at a time of the 20.
    let dir = scratch("again-and-again");
    let attempts = (0..20).position(|_| train(&dir, Some(4)).is_ok()).expect("it must get to its end");
    assert_eq!(attempts, 4);
    assert_eq!(contents(&dir), contents(&whole));
    [dir, whole].iter().for_each(|d| std::fs::remove_dir_all(d).unwrap());
}

#[test]
fn the_same_seed_gives_the_same_bits_and_another_does_not() {
    let run = |seed, threads| {
        let (train, valid) = data();
        let mut t = Trainer::new(Net::new(16), Sgd::new(0.1)).seed(seed).epochs(1).progress(Progress::Silent);
        gradus_cpu::with_threads(threads, || t.fit(&train, &valid, step).map(drop)).unwrap();
        bits(t.model())
    };
    assert_eq!(run(1, 1), run(1, 2));
    assert_ne!(run(1, 1), run(2, 1));
}

#[test]
fn a_finished_run_is_not_trained_again() {
    let dir = scratch("finished");
    let first = bits(train(&dir, None).unwrap().model());
    let before = contents(&dir);
    assert_eq!(bits(train(&dir, Some(0)).unwrap().model()), first); // no pass is made
    assert_eq!(contents(&dir), before);
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn the_newest_and_the_best_checkpoints_are_kept() {
    let dir = scratch("kept");
    let done = train(&dir, None).unwrap();
    let best = done
        .history()
        .unwrap()
        .column("val/accuracy")
        .into_iter()
        .fold((0, f64::NEG_INFINITY), |b, x| if x.1 > b.1 { x } else { b });
    let mut expected = vec![best.0 * 5, 16, 18, 20]; // steps; 5 an epoch
    expected.sort_unstable();
    expected.dedup();
    assert_eq!(checkpoints(&dir), expected.iter().map(|s| format!("step-{s:010}")).collect::<Vec<_>>());
    std::fs::remove_dir_all(dir).unwrap();
}

/// A run that was interrupted in its third epoch, with checkpoints at steps 8, 10 and 12.
fn interrupted(name: &str) -> PathBuf {
    let dir = scratch(name);
    assert!(train(&dir, Some(13)).is_err());
    assert!(checkpoints(&dir).ends_with(&["step-0000000008", "step-0000000010", "step-0000000012"].map(String::from)));
    dir
}

#[test]
fn a_damaged_newest_checkpoint_is_named_and_the_one_before_is_used() {
    let whole = scratch("undamaged");
    train(&whole, None).unwrap();
    type Damage = fn(&Path);
    let damages: [(&str, Damage, &str); 4] = [
        ("bit", |d| flip_last_byte(&d.join("model.safetensors")), "model.safetensors"),
        ("state", |d| std::fs::write(d.join("state.json"), "{}").unwrap(), "state.json"),
        ("missing", |d| std::fs::remove_file(d.join("optimizer.safetensors")).unwrap(), "optimizer.safetensors"),
        ("manifest", |d| flip_last_byte(&d.join(gradus_io::MANIFEST_NAME)), "MANIFEST"),
    ];
    for (name, damage, says) in damages {
        let dir = interrupted(&format!("damaged-{name}"));
        damage(&dir.join("checkpoints/step-0000000012"));
        let resumed = trainer(&dir).resume(dir.join("checkpoints")).unwrap().unwrap();
        assert_eq!((resumed.steps, resumed.epochs, resumed.batches), (10, 2, 0), "{name}");
        assert!(resumed.damaged.len() == 1 && resumed.damaged[0].contains(says), "{:?}", resumed.damaged);
        train(&dir, None).unwrap();
        assert_eq!(contents(&dir), contents(&whole), "{name}");
        std::fs::remove_dir_all(dir).unwrap();
    }
    let dir = interrupted("damaged-all");
    checkpoints(&dir).iter().for_each(|c| flip_last_byte(&dir.join("checkpoints").join(c).join("state.json")));
    let e = text(trainer(&dir).resume(dir.join("checkpoints")).err().unwrap());
    assert!(e.contains("no checkpoint") && e.contains("step-0000000008") && e.contains("step-0000000012"), "{e}");
    [dir, whole].iter().for_each(|d| std::fs::remove_dir_all(d).unwrap());
}

fn flip_last_byte(path: &Path) {
    let mut content = std::fs::read(path).unwrap();
    *content.last_mut().unwrap() ^= 1;
    std::fs::write(path, content).unwrap();
}

#[test]
fn leftovers_of_a_kill_are_removed_before_a_resume() {
    let dir = interrupted("leftovers");
    let partial = dir.join("checkpoints/.step-0000000014.0123456789abcdef0123456789abcdef.partial");
    std::fs::create_dir(&partial).unwrap();
    std::fs::write(partial.join("model.safetensors"), b"half").unwrap();
    assert_eq!(trainer(&dir).resume(dir.join("checkpoints")).unwrap().unwrap().steps, 12);
    assert!(!partial.exists());
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn another_architecture_is_refused_with_every_mismatch_and_the_model_stays() {
    let dir = interrupted("architecture");
    let mut other = Trainer::new(Net::new(24), gradus_optim::AdamW::new(0.01));
    let before = bits(other.model());
    let e = text(other.resume(dir.join("checkpoints")).err().unwrap());
    for name in ["first.weight", "first.bias", "last.weight", "[24, 64]", "[16, 64]", "3 mismatches", "step-0000000012"]
    {
        assert!(e.contains(name), "{name} is not in: {e}");
    }
    assert_eq!(bits(other.model()), before);

    // The model fits, the optimizer does not: neither is taken.
    let mut other = Trainer::new(Net::new(16), Sgd::new(0.01));
    let before = bits(other.model());
    let e = text(other.resume(dir.join("checkpoints")).err().unwrap());
    assert!(e.contains("first.weight.exp_avg"), "{e}");
    assert_eq!(bits(other.model()), before);
    assert_eq!(other.optimizer().unwrap().steps(), 0);
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn a_run_with_other_settings_is_refused() {
    let dir = interrupted("settings");
    let (train, valid) = data();
    let refused = |t: Trainer<Net>, train: &net::Digits| {
        let mut t = t;
        t.resume(dir.join("checkpoints")).unwrap().unwrap();
        text(t.fit(train, &valid, step).err().unwrap())
    };
    let e = refused(trainer(&dir).seed(8), &train);
    assert!(e.contains("seed: 7 then, 8 now"), "{e}");
    let e = refused(trainer(&dir), &train.clone().batch_size(16));
    assert!(e.contains("batches of 32") && e.contains("batches of 16"), "{e}");
    let e = refused(trainer(&dir).accumulate(2), &train);
    assert!(e.contains("batches in a step: 1 then, 2 now"), "{e}");

    let without =
        Trainer::new(Net::new(16), gradus_optim::AdamW::new(0.01)).seed(7).epochs(4).progress(Progress::Silent);
    let e = refused(without, &train);
    assert!(e.contains("early_stopping"), "{e}");
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn a_new_run_does_not_mix_with_an_old_one() {
    let dir = interrupted("mixed");
    let before = contents(&dir);
    let (train, valid) = data();
    let e = text(trainer(&dir).fit(&train, &valid, step).err().unwrap());
    assert!(e.contains("holds checkpoints of an earlier run (step-0000000012)"), "{e}");
    assert_eq!(contents(&dir), before);
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn nothing_to_resume_is_no_error() {
    let dir = scratch("nothing");
    assert!(trainer(&dir).resume(dir.join("checkpoints")).unwrap().is_none());
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn a_models_file_is_read_by_name() {
    let dir = interrupted("by-name");
    let state = gradus_io::load(dir.join("checkpoints/step-0000000012/model.safetensors"), cpu()).unwrap();
    assert_eq!(state.keys().collect::<Vec<_>>(), ["first.bias", "first.weight", "last.bias", "last.weight", "mean"]);
    let mut model = Net::new(16);
    model.load_state_dict(&state).unwrap();
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn checkpoints_come_once_an_epoch_unless_a_rhythm_is_set() {
    let names = |checkpoints: fn(PathBuf) -> Checkpoints, name: &str| {
        let dir = scratch(name);
        let (train, valid) = data();
        let mut t = Trainer::new(Net::new(4), Sgd::new(0.1)).epochs(3).progress(Progress::Silent);
        t = t.checkpoint(checkpoints(dir.join("checkpoints")).keep_last(99));
        t.fit(&train, &valid, step).unwrap();
        let steps: Vec<u64> = self::checkpoints(&dir).iter().map(|n| n["step-".len()..].parse().unwrap()).collect();
        std::fs::remove_dir_all(dir).unwrap();
        steps
    };
    assert_eq!(names(Checkpoints::at, "rhythm-none"), [5, 10, 15]);
    assert_eq!(names(|d| Checkpoints::at(d).every_epochs(2), "rhythm-epochs"), [10, 15]);
    assert_eq!(names(|d| Checkpoints::at(d).every_steps(4), "rhythm-steps"), [4, 8, 12, 15]);
    assert_eq!(names(|d| Checkpoints::at(d).every_steps(5).every_epochs(3), "rhythm-both"), [5, 10, 15]);
}
