//! See `proxy/src/fuzz.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| speechstack_proxy::fuzz::reply(data));
