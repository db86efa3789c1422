//! Every protocol of recognition over the wire: replies whole and slow, cut and wrong; refusals and faults.

use super::fake::{End, Script};
use super::*;
use crate::grpc;
use crate::job::work::Need;
use crate::protocol::testing::replies;
use crate::protocol::{Protocol, Transport};

/// Replies of the protocols that are not carried by WebSocket, whose conversations have tests of their own.
fn replies_of_calls() -> Vec<(Protocol, Vec<u8>)> {
    let mut replies = replies();
    replies.retain(|(protocol, _)| protocol.transport() != Transport::WebSocket);
    replies
}

/// What an engine of the protocol sends for a good reply, in chunks of a few bytes.
fn script(protocol: Protocol, reply: &[u8]) -> Script {
    let (bytes, end) = match protocol.transport() {
        Transport::Http | Transport::WebSocket => (reply.to_vec(), End::Whole),
        Transport::Grpc => {
            let prefix = grpc::frame_prefix(reply.len() as u32);
            ([&prefix[..], reply].concat(), End::Trailers(status("0", "")))
        }
    };
    let chunks = bytes.chunks(7).map(Bytes::copy_from_slice).collect();
    Script { chunks, pause: Duration::from_millis(2), end }
}

fn status(code: &'static str, message: &'static str) -> HeaderMap {
    let pair = |name, value| (::http::HeaderName::from_static(name), HeaderValue::from_static(value));
    HeaderMap::from_iter([pair("grpc-status", code), pair("grpc-message", message)])
}

/// What an engine of the protocol answers when it refuses a file.
fn refusal(protocol: Protocol) -> Answer {
    match protocol.transport() {
        Transport::Http | Transport::WebSocket => {
            let body = Bytes::from_static(br#"{"detail":"no audio in it"}"#);
            Answer::new(400).body(Script { chunks: vec![body], pause: Duration::ZERO, end: End::Whole })
        }
        Transport::Grpc => Answer::new(200).body(Script {
            chunks: Vec::new(),
            pause: Duration::ZERO,
            end: End::Trailers(status("3", "no audio in it")),
        }),
    }
}

/// A guard that misbehaves and one that does not, both in front of engines of the protocol.
async fn pair(protocol: Protocol, reply: &[u8]) -> (Guard, Guard, Stack) {
    let (odd, sound) = (Guard::start("odd").await, Guard::start("sound").await);
    sound.answer(Answer::new(200).body(script(protocol, reply)));
    let speaks = |config: &mut Config| {
        for engine in &mut config.engines {
            engine.protocols = vec![protocol];
            engine.model = Some("whisper-1".into());
        }
    };
    let stack = stack(&[&odd, &sound], speaks).start().await;
    (odd, sound, stack)
}

/// Has the file transcribed, by the odd one first.
async fn transcribe(stack: &Stack, words: Need) -> Result<Served<crate::job::work::Transcript>, Error> {
    let work = Work::Transcribe(Transcribe { words, ..Transcribe::default() });
    let outgoing = Outgoing { work, prefer: Some("odd".into()), ..stack.recording() };
    stack.upstreams.transcribe(&outgoing).await
}

#[tokio::test]
async fn a_slow_reply_is_read_whole_with_the_words_that_the_protocol_gives() {
    for (protocol, reply) in replies_of_calls() {
        let (odd, _sound, stack) = pair(protocol, &reply).await;
        odd.answer(Answer::new(200).body(script(protocol, &reply)));
        for words in [Need::No, Need::Preferred] {
            let served = transcribe(&stack, words).await.unwrap();
            assert_eq!((&*served.engine, &*served.value.text), ("odd", "so"), "{protocol:?}");
        }
        let words = transcribe(&stack, Need::Required).await;
        match protocol.offers().words {
            true => assert_eq!(words.unwrap().value.words.len(), 1, "{protocol:?}"),
            false => assert!(matches!(words, Err(Error::NoEngine { .. })), "{protocol:?}"),
        }
    }
}

#[tokio::test]
async fn a_reply_that_is_cut_ends_without_its_status_or_is_another_is_asked_for_elsewhere() {
    for (protocol, reply) in replies_of_calls() {
        let (odd, _sound, stack) = pair(protocol, &reply).await;
        let whole = script(protocol, &reply);
        let half = Script {
            chunks: whole.chunks[..whole.chunks.len() / 2].to_vec(),
            end: End::Cut,
            ..whole.clone()
        };
        let late = Script { end: End::Cut, ..whole.clone() };
        let wrong = Script { chunks: vec![Bytes::from_static(b"<html>busy</html>")], ..whole.clone() };
        let short = Script { chunks: whole.chunks[..1].to_vec(), ..whole.clone() };
        let mut scripts = vec![half, late, wrong, short];
        if protocol.transport() == Transport::Grpc {
            scripts.push(Script { end: End::Whole, ..whole });
        }
        for script in scripts {
            odd.answer(Answer::new(200).body(script.clone()));
            let before = odd.requests();
            let served = transcribe(&stack, Need::No).await.unwrap();
            assert_eq!((&*served.engine, &*served.value.text), ("sound", "so"), "{protocol:?} {script:?}");
            assert_eq!(odd.requests(), before + 1, "{protocol:?} {script:?}");
        }
    }
}

#[tokio::test]
async fn a_refusal_is_passed_on_with_the_engines_words_and_asked_of_no_other() {
    for (protocol, reply) in replies_of_calls() {
        let (odd, sound, stack) = pair(protocol, &reply).await;
        odd.answer(refusal(protocol));
        match transcribe(&stack, Need::No).await.unwrap_err() {
            Error::EngineRefused { message, .. } => assert_eq!(message, "no audio in it", "{protocol:?}"),
            other => panic!("{protocol:?}: {other:?}"),
        }
        assert_eq!((odd.requests(), sound.requests()), (1, 0), "{protocol:?}");
    }
}

#[tokio::test]
async fn a_fault_is_made_good_by_another_engine() {
    for (protocol, reply) in replies_of_calls() {
        let (odd, _sound, stack) = pair(protocol, &reply).await;
        let mut faults = vec![elsewhere()];
        if protocol.transport() == Transport::Grpc {
            for code in ["13", "14"] {
                let end = End::Trailers(status(code, "CUDA error"));
                let script = Script { chunks: Vec::new(), pause: Duration::ZERO, end };
                faults.push(Answer::new(200).body(script));
            }
        }
        for fault in faults {
            odd.answer(fault);
            assert_eq!(&*transcribe(&stack, Need::No).await.unwrap().engine, "sound", "{protocol:?}");
        }
    }
}

#[tokio::test]
async fn audio_beyond_the_limit_of_a_message_goes_over_http_where_that_will_do() {
    let protocols = ["riva", "nim_http"].map(|name| Protocol::named(name).unwrap());
    let guard = Guard::start("nim").await;
    let speaks = |config: &mut Config| {
        config.engines[0].protocols = protocols.to_vec();
        // Pieces of a file fit a message.
        config.gateway.long.split_after = Duration::ZERO;
    };
    let stack = stack(&[&guard], speaks).start().await;
    for (seconds, words, path) in [
        (60.0, Need::Preferred, "/nvidia.riva.asr.RivaSpeechRecognition/Recognize"),
        (600.0, Need::Preferred, PATH),
        (600.0, Need::Required, "/nvidia.riva.asr.RivaSpeechRecognition/Recognize"),
    ] {
        let work = Work::Transcribe(Transcribe { words, ..Transcribe::default() });
        let outgoing = Outgoing { work, audio_seconds: seconds, ..stack.recording() };
        guard.answer(elsewhere());
        assert!(stack.upstreams.transcribe(&outgoing).await.is_err());
        assert_eq!(guard.last_request().0, path, "{seconds} s, {words:?}");
        eventually(|| stack.upstreams.free(Capability::Stt) == 1).await;
    }
    let end = End::Trailers(status("8", "Received message larger than max (19200000 vs. 4194304)"));
    guard.answer(Answer::new(200).body(Script { chunks: Vec::new(), pause: Duration::ZERO, end }));
    let work = Work::Transcribe(Transcribe { words: Need::Required, ..Transcribe::default() });
    let outgoing = Outgoing { work, ..stack.recording() };
    let refused = stack.upstreams.transcribe(&outgoing).await.unwrap_err();
    assert!(
        matches!(refused, Error::EngineRefused { status: StatusCode::PAYLOAD_TOO_LARGE, .. }),
        "{refused:?}"
    );
}
