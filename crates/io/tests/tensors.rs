//! Tensors to files and back: every dtype, bit for bit; and what cannot become a tensor.

mod random;

use gradus_core::{DType, Device, ErrorKind, Shape, Tensor};
use gradus_io::{Access, Cause, Limits, Manifest, RawTensor, SafeTensors, StoredDType};
use gradus_io::{hash_of, load, raw_to_bytes, save, to_bytes, write_dir_atomic};
use random::Random;
use std::collections::BTreeMap;
use std::path::PathBuf;

fn cpu() -> Device {
    gradus_cpu::device()
}

/// A path for one test, removed at its end.
struct Temp(PathBuf);

impl Temp {
    fn new(name: &str) -> Temp {
        Temp(std::env::temp_dir().join(format!("gradus-io-{name}-{}.safetensors", std::process::id())))
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn none() -> BTreeMap<String, String> {
    BTreeMap::new()
}

fn tensor(bytes: &[u8], dtype: DType, dims: &[usize]) -> Tensor {
    Tensor::from_bytes(bytes, Shape::try_new(dims).unwrap(), cpu().with(dtype)).unwrap()
}

/// A tensor of random bits, which include NaNs with payloads, infinities and subnormals; of 0 and 1 for `bool`.
fn random(r: &mut Random, dtype: DType, dims: &[usize]) -> Tensor {
    let mut bytes = r.bytes(dims.iter().product::<usize>() * dtype.size());
    if dtype == DType::Bool {
        bytes.iter_mut().for_each(|b| *b &= 1);
    }
    tensor(&bytes, dtype, dims)
}

fn assert_same(read: &Tensor, written: &Tensor, what: &str) {
    assert_eq!((read.dtype(), read.dims()), (written.dtype(), written.dims()), "{what}");
    assert_eq!(read.to_bytes().unwrap(), written.to_bytes().unwrap(), "{what}");
}

#[test]
fn every_dtype_and_kind_of_shape_comes_back_bit_for_bit() {
    let mut r = Random::for_test("tensors");
    let temp = Temp::new("dtypes");
    let mut tensors = BTreeMap::new();
    for dtype in DType::ALL {
        for dims in [&[][..], &[0], &[1], &[3, 0, 2], &[7], &[2, 3, 4], &[1, 1, 1, 1, 1, 1, 1, 2]] {
            tensors.insert(format!("层.{dtype}.{dims:?}"), random(&mut r, dtype, dims));
        }
    }
    let metadata = BTreeMap::from([("format".to_string(), "pt".to_string()), ("é".to_string(), "\"\n".to_string())]);
    save(&temp.0, &tensors, &metadata).unwrap();

    let loaded = load(&temp.0, cpu()).unwrap();
    assert_eq!(loaded.len(), tensors.len());
    for access in [Access::Read, Access::Mapped] {
        let file = SafeTensors::open_with(&temp.0, access, &Limits::default()).unwrap();
        assert_eq!(file.metadata(), &metadata);
        for (name, written) in &tensors {
            assert_same(&file.tensor(name, cpu()).unwrap(), written, name);
            assert_same(&loaded[name], written, name);
            assert_eq!(file.info(name).unwrap().dtype, StoredDType::from(written.dtype()));
        }
    }
    let bytes = to_bytes(tensors.iter().rev(), &metadata).unwrap();
    assert_eq!(bytes, std::fs::read(&temp.0).unwrap(), "the same content gives the same bytes, in any order");
    assert_same(
        &SafeTensors::from_bytes(bytes).unwrap().tensor("层.f32.[7]", cpu()).unwrap(),
        &tensors["层.f32.[7]"],
        "memory",
    );
}

#[test]
fn views_and_tensors_larger_than_a_piece_are_written_by_their_own_elements() {
    let mut r = Random::for_test("views");
    for dtype in [DType::F32, DType::U8, DType::F64] {
        // 5 MiB and a little: more than the 4 MiB that are fetched at a time.
        let long = random(&mut r, dtype, &[(5 << 20) / dtype.size() + 3]);
        let wide = random(&mut r, dtype, &[300, 7, 11]);
        let turned = wide.try_permute(&[2, 0, 1]).unwrap();
        assert!(!turned.is_dense());
        let tail = long.try_narrow(0, 1001, (4 << 20) / dtype.size() + 1).unwrap();
        let tensors = [("long", &long), ("turned", &turned), ("tail", &tail)];
        let file = SafeTensors::from_bytes(to_bytes(tensors, &none()).unwrap()).unwrap();
        for (name, written) in tensors {
            assert_same(&file.tensor(name, cpu()).unwrap(), written, name);
        }
    }
}

#[test]
fn a_file_that_is_replaced_stays_readable_to_those_who_have_it_open() {
    let temp = Temp::new("replaced");
    let old = tensor(&[1, 2, 3], DType::U8, &[3]);
    save(&temp.0, [("w", &old)], &none()).unwrap();
    let (read, mapped) = (SafeTensors::open(&temp.0).unwrap(), SafeTensors::open_mapped(&temp.0).unwrap());
    save(&temp.0, [("w", &tensor(&[4; 5000], DType::U8, &[5000]))], &none()).unwrap();
    assert_same(&read.tensor("w", cpu()).unwrap(), &old, "read");
    assert_same(&mapped.tensor("w", cpu()).unwrap(), &old, "mapped");
    assert_eq!(load(&temp.0, cpu()).unwrap()["w"].dims(), [5000]);
}

#[test]
fn a_checkpoint_directory_holds_the_same_file_as_save_writes() {
    let mut r = Random::for_test("checkpoint");
    let (temp, dir) = (Temp::new("plain"), std::env::temp_dir().join(format!("gradus-io-run-{}", std::process::id())));
    // One tensor for the thread that hashes, and many small ones that are gathered.
    let mut tensors = BTreeMap::from([("large".to_string(), random(&mut r, DType::F32, &[1 << 20]))]);
    (0..100).for_each(|i| drop(tensors.insert(format!("small.{i}"), random(&mut r, DType::F16, &[i]))));
    let metadata = BTreeMap::from([("step".to_string(), "7".to_string())]);
    save(&temp.0, &tensors, &metadata).unwrap();
    write_dir_atomic(&dir, |staged| {
        staged.save("model.safetensors", &tensors, &metadata)?;
        staged.write("state.json", b"{}")?;
        Ok::<(), gradus_core::Error>(())
    })
    .unwrap();
    let manifest = Manifest::verify(&dir).unwrap();
    assert_eq!(manifest.entry("model.safetensors").unwrap().hash, hash_of(&std::fs::read(&temp.0).unwrap()));
    for (name, read) in load(dir.join("model.safetensors"), cpu()).unwrap() {
        assert_same(&read, &tensors[&name], &name);
    }
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn types_that_gradus_lacks_are_listed_and_readable_as_bytes() {
    for &dtype in StoredDType::ALL.iter().filter(|d| d.dtype().is_none()) {
        let bytes: Vec<u8> = (0..dtype.bytes_of(&[8]).unwrap() as u8).collect();
        let raw = RawTensor { name: "w", dtype, shape: &[8], bytes: &bytes };
        let file = SafeTensors::from_bytes(raw_to_bytes(&[raw], &none()).unwrap()).unwrap();
        assert_eq!((file.info("w").unwrap().dtype, &file.info("w").unwrap().shape[..]), (dtype, &[8][..]));
        assert_eq!(file.bytes("w").unwrap(), bytes);
        let error = file.tensor("w", cpu()).unwrap_err();
        assert!(matches!(error.cause(), Cause::Unsupported { .. }), "{error}");
        assert!(error.to_string().contains(dtype.name()), "{error}");
    }
}

#[test]
fn truth_values_other_than_0_and_1_are_refused_with_their_place() {
    let raw = RawTensor { name: "mask", dtype: StoredDType::Bool, shape: &[4], bytes: &[0, 1, 7, 1] };
    let bytes = raw_to_bytes(&[raw], &none()).unwrap();
    let file = SafeTensors::from_bytes(bytes.clone()).unwrap();
    let error = file.tensor("mask", cpu()).unwrap_err();
    let Cause::BoolByte { at, byte: 7, .. } = error.cause() else { panic!("{error}") };
    assert_eq!(bytes[*at as usize], 7);
    assert_eq!(&file.bytes("mask").unwrap()[..], [0, 1, 7, 1]);
}

#[test]
fn a_tensor_of_more_dimensions_than_gradus_has_is_listed_and_refused() {
    let raw = RawTensor { name: "w", dtype: StoredDType::U8, shape: &[1; 9], bytes: &[5] };
    let file = SafeTensors::from_bytes(raw_to_bytes(&[raw], &none()).unwrap()).unwrap();
    let error = file.tensor("w", cpu()).unwrap_err();
    assert!(matches!(error.cause(), Cause::Device { .. }) && error.to_string().contains("at most 8"), "{error}");
    assert_eq!(&file.bytes("w").unwrap()[..], [5]);
}

#[test]
fn what_could_not_be_read_again_is_not_written() {
    let raw = |name, shape, bytes| RawTensor { name, dtype: StoredDType::U8, shape, bytes };
    let (one, two) = (raw("a", &[1], &[1]), raw("a", &[1], &[2]));
    let cases: [(&[RawTensor], &str); 5] = [
        (&[raw("__metadata__", &[1], &[1])], "cannot be called \"__metadata__\""),
        (&[one, two], "two of the tensors to be written are called \"a\""),
        (&[raw("a", &[2], &[1])], "1 bytes given for U8 of shape [2]"),
        (&[raw("a", &[1; 17], &[1])], "has 17 dimensions, more than the 16"),
        (&[raw("a", &[1 << 40, 1 << 40], &[1])], "1 bytes given for U8"),
    ];
    for (tensors, message) in cases {
        let error = raw_to_bytes(tensors, &none()).unwrap_err();
        assert!(error.to_string().contains(message), "{error}");
    }
    let names: Vec<String> = (0..100_001).map(|i| i.to_string()).collect();
    let many: Vec<RawTensor> = names.iter().map(|n| raw(n, &[0], &[])).collect();
    assert!(matches!(raw_to_bytes(&many, &none()).unwrap_err().cause(), Cause::TensorLimit { .. }));
    let long = BTreeMap::from([("k".to_string(), "v".repeat(25_000_000))]);
    assert!(matches!(raw_to_bytes(&[], &long).unwrap_err().cause(), Cause::HeaderLimit { .. }));
}

#[test]
fn errors_become_errors_of_the_library_with_their_kind() {
    let core = |e: gradus_io::SafetensorsError| gradus_core::Error::from(e);
    let absent = core(load("/absent/file", cpu()).unwrap_err());
    assert_eq!(absent.kind(), ErrorKind::Io);
    assert!(absent.to_string().contains("/absent/file"), "{absent}");
    let damaged = core(SafeTensors::from_bytes(vec![0; 3]).unwrap_err());
    assert_eq!(damaged.kind(), ErrorKind::Data);
    let unwritable = core(save("/absent/file", [("w", &tensor(&[1], DType::U8, &[1]))], &none()).unwrap_err());
    assert_eq!(unwritable.kind(), ErrorKind::Io);
}
