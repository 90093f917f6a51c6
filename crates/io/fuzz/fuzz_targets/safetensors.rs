//! Any bytes are read or refused; what is read is sound, and written again and read gives the same.
#![no_main]

use gradus_io::{RawTensor, SafeTensors, raw_to_bytes};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(file) = SafeTensors::from_bytes(data.to_vec()) else { return };
    let bytes: Vec<_> = file.infos().iter().map(|info| file.bytes(&info.name).expect("a listed tensor")).collect();
    let tensors: Vec<RawTensor> = file
        .infos()
        .iter()
        .zip(&bytes)
        .map(|(info, bytes)| RawTensor { name: &info.name, dtype: info.dtype, shape: &info.shape, bytes })
        .collect();
    let Ok(written) = raw_to_bytes(&tensors, file.metadata()) else { return };
    let again = SafeTensors::from_bytes(written).expect("what was written");
    assert_eq!(again.metadata(), file.metadata());
    for tensor in &tensors {
        assert_eq!(again.bytes(tensor.name).expect("a written tensor"), tensor.bytes);
    }
});
