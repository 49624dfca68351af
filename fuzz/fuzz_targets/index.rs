#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| chunk_unet_fuzz::index(data));
