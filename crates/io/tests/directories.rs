//! Directories that are complete or absent: manifests, replacement, leftovers of a kill, and a writer that is killed.

mod random;

use gradus_io::{
    DirError, FileError, MANIFEST_NAME, Manifest, Problem, StagedDir, recover, remove_dir_atomic, write_dir_atomic,
    write_file_atomic,
};
use random::Random;
use std::fs;
use std::io::{Error, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A directory for one test, removed at its end.
struct Temp(PathBuf);

impl Temp {
    fn new(name: &str) -> Temp {
        let dir = std::env::temp_dir().join(format!("gradus-io-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        Temp(dir)
    }
    fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
    /// What is in the directory, hidden things too.
    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(&self.0).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn put(path: PathBuf, content: &str) -> Result<(), DirError> {
    fs::write(&path, content).map_err(|source| DirError::File(FileError { doing: "write", path, source }))
}

/// A directory with two files, one of them in a directory of its own.
fn write_sample(path: &Path, content: &str) {
    write_dir_atomic(path, |dir| {
        put(dir.join("model"), content)?;
        fs::create_dir(dir.join("inner")).unwrap();
        put(dir.join("inner/state"), &content.repeat(100_000))
    })
    .unwrap();
}

#[test]
fn a_directory_appears_with_its_manifest_and_can_be_replaced() {
    let temp = Temp::new("appears");
    let path = temp.join("step-1");
    write_sample(&path, "one");
    let manifest = Manifest::verify(&path).unwrap();
    let paths: Vec<&str> = manifest.entries().iter().map(|e| e.path.as_str()).collect();
    assert_eq!(paths, ["inner/state", "model"]);
    assert_eq!(manifest.entry("inner/state").unwrap().bytes, 300_000);
    let text = fs::read_to_string(path.join(MANIFEST_NAME)).unwrap();
    assert!(text.contains(&format!("{} 3 model\n", hex(&gradus_io::hash_of(b"one")))), "{text}");
    assert_eq!(text, manifest.to_string());

    write_sample(&path, "two");
    assert_ne!(Manifest::verify(&path).unwrap().hash(), manifest.hash());
    write_sample(&path, "one");
    assert_eq!(Manifest::verify(&path).unwrap(), manifest, "the same content gives the same manifest");
    assert_eq!(temp.names(), ["step-1"], "nothing else is left");
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[test]
fn the_hash_is_blake3() {
    // The first test vector of the BLAKE3 reference: no input.
    let empty = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";
    assert_eq!(hex(&gradus_io::hash_of(b"")), empty);
}

#[test]
fn verify_lists_every_problem() {
    let temp = Temp::new("problems");
    let path = temp.join("run");
    write_dir_atomic(&path, |dir| {
        for name in ["a", "b", "c", "d"] {
            put(dir.join(name), "content")?;
        }
        Ok::<(), DirError>(())
    })
    .unwrap();
    fs::remove_file(path.join("a")).unwrap();
    fs::write(path.join("b"), "longer content").unwrap();
    fs::write(path.join("c"), "c0ntent").unwrap();
    fs::write(path.join("e"), "new").unwrap();
    let error = Manifest::verify(&path).unwrap_err();
    let DirError::Damaged { problems, .. } = &error else { panic!("{error}") };
    assert!(
        matches!(
            &problems[..],
            [Problem::Missing { path: a }, Problem::Length { path: b, listed: 7, found: 14 }, Problem::Content { path: c, .. }, Problem::Unlisted { path: e }]
            if [a.as_str(), b, c, e] == ["a", "b", "c", "e"]
        ),
        "{error}"
    );
    for part in
        ["\"a\" is missing", "\"b\" has 14 bytes instead of 7", "\"c\" has the hash", "\"e\" is not in the manifest"]
    {
        assert!(error.to_string().contains(part), "{error}");
    }
}

#[test]
fn a_cut_or_edited_manifest_shows_itself() {
    let temp = Temp::new("edited");
    let path = temp.join("run");
    write_sample(&path, "text");
    let file = path.join(MANIFEST_NAME);
    let text = fs::read(&file).unwrap();
    for end in 0..text.len() {
        fs::write(&file, &text[..end]).unwrap();
        assert!(matches!(Manifest::read(&path), Err(DirError::Malformed { .. })), "cut to {end} bytes");
    }
    let mut r = Random::for_test("edited manifest");
    for _ in 0..300 {
        let mut bytes = text.clone();
        let at = r.below(bytes.len());
        bytes[at] ^= 1 << r.below(8);
        fs::write(&file, &bytes).unwrap();
        assert!(Manifest::read(&path).is_err(), "bit flipped in byte {at} was not seen");
    }
    fs::write(&file, [&text[..], b"\n"].concat()).unwrap();
    assert!(Manifest::read(&path).is_err());
    fs::remove_file(&file).unwrap();
    assert!(matches!(Manifest::read(&path), Err(DirError::File(_))));
}

#[test]
fn a_manifest_cannot_point_outside_its_directory() {
    let temp = Temp::new("outside");
    fs::write(temp.join("secret"), "content").unwrap();
    let path = temp.join("run");
    write_dir_atomic(&path, |dir| put(dir.join("a"), "content")).unwrap();
    // A manifest that is right in itself, with a path that leaves the directory.
    let text = fs::read_to_string(path.join(MANIFEST_NAME)).unwrap().replace(" a\n", " ../secret\n");
    let lines = &text[..text.rfind("end ").unwrap()];
    fs::write(path.join(MANIFEST_NAME), format!("{lines}end 1 {}\n", hex(&gradus_io::hash_of(lines.as_bytes()))))
        .unwrap();
    assert_eq!(Manifest::read(&path).unwrap().entries()[0].path, "../secret");
    let DirError::Damaged { problems, .. } = Manifest::verify(&path).unwrap_err() else { panic!() };
    assert!(matches!(&problems[0], Problem::Missing { path } if path == "../secret"));
}

#[cfg(unix)]
#[test]
fn links_are_not_listed() {
    let temp = Temp::new("links");
    let written = write_dir_atomic(temp.join("run"), |dir| {
        std::os::unix::fs::symlink("/etc/hostname", dir.join("link")).unwrap();
        Ok::<(), DirError>(())
    });
    assert!(matches!(written, Err(DirError::Unfit { .. })));
    assert_eq!(temp.names(), [""; 0]);
}

#[test]
fn a_large_file_is_replaced_whole_while_others_still_read_the_old_one() {
    let temp = Temp::new("large");
    let path = temp.join("weights");
    let contents: Vec<Vec<u8>> = (0..4u8).map(|i| vec![i; (17 << 20) + usize::from(i)]).collect();
    let mut open = Vec::new();
    for content in &contents {
        write_file_atomic(&path, |f| {
            f.write_all(content).map_err(|source| FileError { doing: "write", path: path.clone(), source })
        })
        .unwrap();
        assert_eq!(temp.names(), ["weights"]);
        assert!(fs::read(&path).unwrap() == *content);
        open.push(fs::File::open(&path).unwrap());
    }
    for (mut file, content) in open.into_iter().zip(&contents) {
        let mut read = Vec::new();
        std::io::Read::read_to_end(&mut file, &mut read).unwrap();
        assert!(read == *content);
    }
}

#[test]
fn a_writer_that_fails_or_panics_leaves_everything_as_it_was() {
    let temp = Temp::new("fails");
    let path = temp.join("run");
    let fail = |dir: &StagedDir| {
        dir.write("half", b"half")?;
        Err::<(), DirError>(
            FileError { doing: "write", path: dir.to_path_buf(), source: Error::other("disk full") }.into(),
        )
    };
    assert!(write_dir_atomic(&path, fail).unwrap_err().to_string().contains("disk full"));
    assert_eq!(temp.names(), [""; 0]);
    write_sample(&path, "old");
    write_dir_atomic(&path, fail).unwrap_err();
    let panicked = std::panic::catch_unwind(|| {
        write_dir_atomic(&path, |dir| -> Result<(), DirError> {
            put(dir.join("half"), "half")?;
            panic!("planned")
        })
    });
    assert!(panicked.is_err());
    let file = temp.join("file");
    fs::write(&file, "old").unwrap();
    let result = write_file_atomic(&file, |f| {
        f.write_all(b"half").unwrap();
        Err::<(), _>(FileError { doing: "write", path: file.clone(), source: Error::other("disk full") })
    });
    assert!(result.is_err());
    assert_eq!(fs::read_to_string(&file).unwrap(), "old");
    assert_eq!(fs::read_to_string(path.join("model")).unwrap(), "old");
    assert_eq!(temp.names(), ["file", "run"]);
    let over_file = write_dir_atomic(&file, |dir| put(dir.join("a"), "a")).unwrap_err();
    assert!(over_file.to_string().contains("a file stands where"), "{over_file}");
    assert_eq!(temp.names(), ["file", "run"]);
}

/// A hidden name as a writer that was killed leaves it.
fn hidden(temp: &Temp, name: &str, id: u8, state: &str) -> PathBuf {
    temp.join(&format!(".{name}.{id:032x}.{state}"))
}

#[test]
fn leftovers_of_a_kill_are_put_right() {
    let temp = Temp::new("leftovers");
    // Killed while building; and while building a file.
    fs::create_dir_all(hidden(&temp, "a", 1, "partial").join("inner")).unwrap();
    fs::write(hidden(&temp, "file", 1, "partial"), "half").unwrap();
    // Killed between the two renames of a replacement.
    write_sample(&temp.join("b"), "old");
    fs::rename(temp.join("b"), hidden(&temp, "b", 1, "old")).unwrap();
    write_sample(&temp.join("new"), "new");
    fs::rename(temp.join("new"), hidden(&temp, "b", 2, "partial")).unwrap();
    // Killed after them.
    write_sample(&temp.join("c"), "new");
    fs::create_dir(hidden(&temp, "c", 1, "old")).unwrap();
    // Killed while removing.
    fs::create_dir(hidden(&temp, "d", 1, "gone")).unwrap();
    // Not ours.
    for name in [".a.partial", ".a.12.partial", "a.partial", ".hidden"] {
        fs::write(temp.join(name), "").unwrap();
    }
    assert_eq!(recover(&temp.0).unwrap().len(), 6);
    assert_eq!(temp.names(), [".a.12.partial", ".a.partial", ".hidden", "a.partial", "b", "c"]);
    Manifest::verify(temp.join("b")).unwrap();
    assert_eq!(fs::read_to_string(temp.join("b/model")).unwrap(), "old");
    assert_eq!(fs::read_to_string(temp.join("c/model")).unwrap(), "new");
    assert!(recover(&temp.0).unwrap().is_empty());
}

#[test]
fn what_a_living_writer_builds_is_left_alone() {
    let temp = Temp::new("living");
    let path = temp.join("run");
    write_sample(&path, "old");
    write_dir_atomic(&path, |dir| {
        put(dir.join("model"), "outer")?;
        assert!(recover(&temp.0).unwrap().is_empty(), "the directory being built was taken for a leftover");
        // As another writer would see it between this one's two renames.
        let aside = hidden(&temp, "run", 9, "old");
        fs::rename(&path, &aside).unwrap();
        assert!(recover(&temp.0).unwrap().is_empty(), "a living writer's old directory was put back");
        fs::rename(&aside, &path).unwrap();
        write_sample(&path, "inner");
        assert!(dir.join("model").exists());
        Ok::<(), DirError>(())
    })
    .unwrap();
    assert_eq!(fs::read_to_string(path.join("model")).unwrap(), "outer");
    Manifest::verify(&path).unwrap();
    assert_eq!(temp.names(), ["run"]);
}

#[test]
fn removal_is_at_once() {
    let temp = Temp::new("removal");
    let path = temp.join("run");
    write_sample(&path, "old");
    remove_dir_atomic(&path).unwrap();
    remove_dir_atomic(&path).unwrap();
    assert_eq!(temp.names(), [""; 0]);
}

#[test]
fn paths_that_cannot_be_written_are_named() {
    let temp = Temp::new("unwritable");
    let error = write_dir_atomic(temp.join("absent/run"), |_| Ok::<(), DirError>(())).unwrap_err();
    assert!(error.to_string().contains("absent"), "{error}");
    for path in ["/", "..", ""] {
        let error = write_dir_atomic(path, |_| Ok::<(), DirError>(())).unwrap_err();
        assert!(error.to_string().contains("does not end in a name"), "{path:?}: {error}");
    }
}

#[test]
fn files_hashed_while_they_are_written_have_the_hash_of_their_content() {
    let temp = Temp::new("hashed");
    let path = temp.join("run");
    let mut r = Random::for_test("hashed");
    // Below, at and above the size from which a second thread hashes.
    let sizes = [0, 1, 1000, (1 << 20) - 1, 1 << 20, (3 << 20) + 5];
    let contents: Vec<Vec<u8>> = sizes.iter().map(|&n| r.bytes(n)).collect();
    write_dir_atomic(&path, |dir| {
        for (i, content) in contents.iter().enumerate() {
            dir.write(&i.to_string(), content)?;
        }
        for name in ["../out", "/out", "", "a/../../out"] {
            assert!(dir.write(name, b"").is_err(), "{name:?} was written");
        }
        assert!(dir.write("0", b"again").is_err(), "a file was written twice");
        Ok::<(), DirError>(())
    })
    .unwrap();
    let manifest = Manifest::verify(&path).unwrap();
    for (i, content) in contents.iter().enumerate() {
        assert_eq!(manifest.entry(&i.to_string()).unwrap().hash, gradus_io::hash_of(content));
    }
    assert_eq!(temp.names(), ["run"]);
}

const VICTIM: &str = "GRADUS_IO_TEST_VICTIM";

/// Not a test of its own: the process that `a_killed_writer_leaves_complete_or_absent` starts and kills.
#[test]
fn victim() {
    let Ok(path) = std::env::var(VICTIM) else { return };
    // An end, should nobody kill it.
    for round in 0..10_000 {
        write_sample(Path::new(&path), &format!("{round:07}"));
        println!("written {round}");
    }
}

#[cfg(unix)]
#[test]
fn a_killed_writer_leaves_complete_or_absent() {
    let temp = Temp::new("killed");
    let path = temp.join("run");
    let mut r = Random::for_test("kill");
    let (mut survived, mut put_back) = (0, 0);
    for round in 0..25 {
        let mut victim = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "victim", "--nocapture"])
            .env(VICTIM, &path)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        // Whenever the kill comes, the property below must hold.
        std::thread::sleep(std::time::Duration::from_micros(5_000 + r.bits() % 40_000));
        victim.kill().unwrap();
        victim.wait().unwrap();
        if path.exists() {
            Manifest::verify(&path).unwrap_or_else(|e| panic!("round {round}: {e}"));
        } else {
            put_back += usize::from(survived > 0);
        }
        recover(&temp.0).unwrap();
        assert!(path.exists() || survived == 0, "round {round}: a directory that was complete is gone");
        if path.exists() {
            Manifest::verify(&path).unwrap_or_else(|e| panic!("round {round}, recovered: {e}"));
            survived += 1;
            assert_eq!(temp.names(), ["run"]);
        } else {
            assert_eq!(temp.names(), [""; 0]);
        }
    }
    println!("{survived} of 25 kills left a directory, {put_back} of them aside");
}
