//! Files of every container, rate and number of channels, whole and cut: each is heard or refused as a 400, and an engine is not
//! called for what it cannot hear.

use bytes::Bytes;
use contract::Capability;
use reqwest::multipart::{Form, Part};

use crate::audio::signal::speech;
use crate::audio::{Encoder, OutputFormat, wav};
use crate::gateway::tests::stack::Stack;
use crate::protocol::Protocol;

/// A name, and the bytes of a file of 0.3 s.
type Upload = (String, Vec<u8>);

fn encoded(format: OutputFormat, rate: u32) -> Upload {
    let mut encoder = Encoder::new(format, rate).unwrap();
    let mut file = encoder.encode(&speech(rate, 0.3)).unwrap().to_vec();
    file.extend(encoder.finish().unwrap());
    (format!("{}-{rate}", format.name()), file)
}

fn with_channels(rate: u32, channels: u16) -> Upload {
    let mono = speech(rate, 0.3);
    let len = mono.len() * 2 * usize::from(channels);
    let mut file = wav::header(rate, channels, Some(len as u64)).to_vec();
    for sample in mono {
        for _ in 0..channels {
            file.extend_from_slice(&sample.to_le_bytes());
        }
    }
    (format!("wav-{rate}-{channels}"), file)
}

fn uploads() -> Vec<Upload> {
    let mut all = Vec::new();
    for rate in [8_000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000] {
        for channels in [1, 2, 6, 8] {
            all.push(with_channels(rate, channels));
        }
        all.push(encoded(OutputFormat::Flac, rate));
    }
    for rate in [8_000, 16_000, 24_000, 48_000] {
        all.extend(
            [OutputFormat::Opus, OutputFormat::Webm, OutputFormat::Mp3].map(|format| encoded(format, rate)),
        );
    }
    all
}

#[tokio::test]
async fn every_upload_is_heard_or_refused_and_none_is_a_fault_of_the_server() {
    // An engine that takes few formats, so that the gateway has to decode most of them.
    let stack = Stack::with(&[Capability::Stt], |config| {
        config.engines[0].protocols = Protocol::named("nim_http").into_iter().collect();
    })
    .await;
    let (mut heard, mut refused) = (0, 0);
    for (name, file) in uploads() {
        let len = file.len();
        // Whole, then without what is behind these places.
        for cut in [len, len - 1, len * 3 / 4, len / 2, len / 8, 60, 44, 12, 4, 1] {
            let before = stack.engines[0].begun();
            let part =
                Part::bytes(Bytes::copy_from_slice(&file[..cut.min(len)]).to_vec()).file_name("upload");
            let form = Form::new().part("file", part);
            let response = stack.post("/v1/audio/transcriptions").multipart(form).send().await.unwrap();
            let status = response.status().as_u16();
            match status {
                200 => heard += 1,
                400 => refused += 1,
                other => panic!("{name}, {cut} of {len} bytes: {other} {}", response.text().await.unwrap()),
            }
            let called = stack.engines[0].begun() > before;
            assert_eq!(called, status == 200, "{name}, {cut} of {len} bytes: {status}");
            assert!(status == 200 || cut < len, "{name} is refused");
        }
    }
    assert!(heard > 200 && refused > 80, "{heard} heard, {refused} refused");
}
