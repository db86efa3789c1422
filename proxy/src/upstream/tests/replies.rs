//! Replies that stream, break off, or are not what the protocol sends.

use super::*;

#[tokio::test]
async fn a_streamed_reply_passes_chunk_by_chunk_and_counts_as_in_flight_meanwhile() {
    let guard = Guard::start("only").await;
    let stack = stack(&[&guard], |_| {}).start().await;
    let (mut chunks, body) = futures::channel::mpsc::channel::<Bytes>(0);
    guard.stream(body);
    let served = stack.upstreams.run(&stack.small(), |reply| async move { Ok(reply) }).await.unwrap();
    let mut reply = served.value;
    for chunk in ["one", "two", "three"] {
        // The next chunk is not made before the last one was received.
        futures::SinkExt::send(&mut chunks, Bytes::from(chunk)).await.unwrap();
        assert_eq!(reply.next().await.unwrap().unwrap(), chunk);
    }
    let endpoint = || stack.upstreams.of(Capability::Stt.into()).next().unwrap();
    assert_eq!(endpoint().candidate(Instant::now()).0.in_flight, 1);
    drop(reply);
    assert_eq!(endpoint().candidate(Instant::now()).0.in_flight, 0);
}

#[tokio::test]
async fn a_reply_that_breaks_off_before_its_end_is_asked_for_elsewhere_under_the_budget() {
    let (breaks, sound) = (Guard::start("breaks").await, Guard::start("sound").await);
    let stack = stack(&[&breaks, &sound], |_| {}).start().await;
    breaks.stream_broken();
    let served = stack.send_to(&breaks).await.unwrap();
    assert_eq!(&*served.engine, "sound");
    // The connection may end before the head was read or after it.
    let either = |name| stack.metric(name, "reset") + stack.metric(name, "broken");
    assert_eq!(either("attempts_total"), 1.0);
    assert_eq!(either("retries_total"), 1.0);
}

#[tokio::test]
async fn a_reply_that_is_none_of_the_protocols_is_asked_for_elsewhere() {
    let (odd, sound) = (Guard::start("odd").await, Guard::start("sound").await);
    let stack = stack(&[&odd, &sound], |_| {}).start().await;
    odd.stream(once("<html>"));
    sound.stream(once(r#"{"text":"hello"}"#));
    let outgoing = Outgoing { prefer: Some("odd".into()), ..stack.small() };
    let served = stack.upstreams.transcribe(&outgoing).await.unwrap();
    assert_eq!((&*served.engine, &*served.value.text), ("sound", "hello"));
    assert_eq!(stack.metric("attempts_total", "malformed"), 1.0);
}

#[tokio::test]
async fn voices_are_asked_for_elsewhere_too_and_only_for_so_long() {
    let (wedged, sound) = (Guard::start("wedged").await, Guard::start("sound").await);
    wedged.answer(elsewhere());
    let speaks = |config: &mut Config| {
        config.engines.iter_mut().for_each(|engine| engine.capability = Capability::Tts);
    };
    let stack = stack(&[&wedged, &sound], speaks).start().await;
    for _ in 0..10 {
        sound.stream(once(r#"{"en-US":{"voices":["M.EN-US.Mia"]}}"#));
        let voices = stack.upstreams.list_voices(Duration::from_secs(10)).await.unwrap();
        assert_eq!(voices, ["M.EN-US.Mia"]);
    }
    let (_chunks, endless) = futures::channel::mpsc::channel::<Bytes>(0);
    sound.stream(endless);
    assert_eq!(stack.upstreams.list_voices(Duration::from_millis(50)).await, None);
}

/// A body of one chunk.
fn once(text: &'static str) -> futures::channel::mpsc::Receiver<Bytes> {
    let (mut sender, receiver) = futures::channel::mpsc::channel(1);
    sender.try_send(Bytes::from_static(text.as_bytes())).unwrap();
    receiver
}
