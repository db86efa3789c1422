//! Engines that fail, break off or fall silent.

use crate::guard::path::forward::tests::*;

#[tokio::test]
async fn a_dead_context_behind_a_client_error_ejects_at_once_and_is_reported() {
    let mut stack = Stack::start().await;
    let body = r#"{"detail":"CUDA error: an illegal memory access was encountered"}"#;
    *stack.engine.reply.lock() =
        Reply::Body(StatusCode::UNPROCESSABLE_ENTITY, "application/json", body.into());
    let reply = stack.send(TRANSCRIBE, Body::from("audio")).await.unwrap();
    assert_eq!(
        (reply.status, reply.body.as_deref()),
        (StatusCode::UNPROCESSABLE_ENTITY, Some(body.as_bytes()))
    );
    assert_eq!(reply.header("x-speechstack-class"), "A");
    assert_eq!(reply.header("x-speechstack-retry"), "elsewhere");
    assert!(stack.lane.is_ejected(), "until the health loop has looked at it");
    let seen = stack.observations.recv().await.unwrap();
    let Observation::Hint(hint) = seen.observation else { panic!("{seen:?}") };
    assert_eq!((hint.class, hint.status), (Class::Sticky, Some(422)));
    assert_eq!(hint.signature.as_deref(), Some("illegal_address"));
    assert_eq!(hint.body.as_deref(), Some(body));
    assert_eq!(hint.request_hash, Some(InputHash::of(b"audio").to_string()));
    assert_eq!(stack.post(TRANSCRIBE, b"next").await.status(), 503);
    drop(seen.hold);
    assert!(!stack.lane.is_ejected(), "the loop alone decides from now on");
}

#[tokio::test]
async fn a_text_that_the_engine_repeats_is_no_fault() {
    let mut stack = Stack::start().await;
    let said = r#"{"text":"CUDA error: an illegal memory access was encountered"}"#;
    let body = r#"{"detail":"unable to say 'CUDA error: an illegal memory access was encountered'"}"#;
    for (status, observed) in
        [(StatusCode::BAD_REQUEST, None), (StatusCode::INTERNAL_SERVER_ERROR, Some("B"))]
    {
        *stack.engine.reply.lock() = Reply::Body(status, "application/json", body.into());
        let reply = stack.send(SPEAK_ONLINE, Body::from(said)).await.unwrap();
        assert_eq!(
            (reply.status, reply.header("x-speechstack-class")),
            (status, observed.unwrap_or_default())
        );
        assert!(!stack.lane.is_ejected());
        match observed {
            Some(_) => assert_eq!(stack.hinted().await.signature, None),
            None => stack.nothing_observed(),
        }
    }
}

#[tokio::test]
async fn a_text_that_probes_have_disproved_ejects_nothing() {
    let mut stack = Stack::start().await;
    let body = r#"{"detail":"CUDA error: device-side assert triggered"}"#;
    *stack.engine.reply.lock() =
        Reply::Body(StatusCode::INTERNAL_SERVER_ERROR, "application/json", body.into());
    let reply = stack.send(TRANSCRIBE, Body::from("audio")).await.unwrap();
    assert_eq!(reply.header("x-speechstack-class"), "A");
    assert_eq!(stack.hinted().await.class, Class::Sticky);
    stack.forward.disprove(clock());
    let reply = stack.send(TRANSCRIBE, Body::from("audio")).await.unwrap();
    assert_eq!(reply.header("x-speechstack-class"), "B");
    assert!(!stack.lane.is_ejected());
    assert_eq!(stack.hinted().await.class, Class::Ambiguous);
    stack.forward.instance_changed();
    let reply = stack.send(TRANSCRIBE, Body::from("audio")).await.unwrap();
    assert_eq!(reply.header("x-speechstack-class"), "A", "another process may have it");
}

#[tokio::test]
async fn the_clients_own_mistakes_pass_untouched() {
    let mut stack = Stack::start().await;
    let body = r#"{"detail":[{"loc":["body","file"],"msg":"field required"}]}"#;
    *stack.engine.reply.lock() =
        Reply::Body(StatusCode::UNPROCESSABLE_ENTITY, "application/json", body.into());
    let reply = stack.send(TRANSCRIBE, Body::from("audio")).await.unwrap();
    assert_eq!(
        (reply.status, reply.body.as_deref()),
        (StatusCode::UNPROCESSABLE_ENTITY, Some(body.as_bytes()))
    );
    assert_eq!(reply.header("x-speechstack-retry"), "");
    stack.nothing_observed();
}

#[tokio::test]
async fn a_long_error_body_arrives_whole() {
    let stack = Stack::start().await;
    let body = Bytes::from(vec![b'x'; 300_000]);
    *stack.engine.reply.lock() = Reply::Body(StatusCode::BAD_REQUEST, "text/plain", body.clone());
    let reply = stack.send(TRANSCRIBE, Body::from("audio")).await.unwrap();
    assert_eq!(reply.body, Some(body));
}

#[tokio::test]
async fn an_engine_that_says_it_is_busy_is_no_fault() {
    let mut stack = Stack::start().await;
    *stack.engine.reply.lock() =
        Reply::Body(StatusCode::SERVICE_UNAVAILABLE, "application/json", r#"{"detail":"queue full"}"#.into());
    let reply = stack.send(TRANSCRIBE, Body::from("audio")).await.unwrap();
    assert_eq!(
        (reply.status, reply.header("x-speechstack-retry")),
        (StatusCode::SERVICE_UNAVAILABLE, "elsewhere")
    );
    assert!(matches!(stack.observed().await, Observation::Busy { .. }));
}

#[tokio::test]
async fn an_engine_that_answers_before_the_upload_ends_is_heard() {
    let mut stack = Stack::start().await;
    *stack.engine.reply.lock() = Reply::Early(StatusCode::PAYLOAD_TOO_LARGE);
    let (sender, body) = upload();
    let early = stack.send(TRANSCRIBE, body);
    sender.send(Bytes::from(vec![0; 4096])).await.unwrap();
    assert_eq!(early.await.unwrap().status, 413);
    assert_eq!(stack.lane.view().waiting, 0);
    stack.nothing_observed();
}

#[tokio::test]
async fn a_refused_connection_is_reported_with_its_class() {
    let (engine, server) = Engine::start().await;
    // A port that nobody listens on.
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let mut stack = Stack::before(engine, server, &format!("http://{free}"), |_| {}).await;
    let reply = stack.send(TRANSCRIBE, Body::from("audio")).await.unwrap();
    assert_eq!((reply.status, reply.header("x-speechstack-retry")), (StatusCode::BAD_GATEWAY, "elsewhere"));
    assert_eq!(reply.header("x-speechstack-class"), "R");
    assert_eq!(stack.hinted().await.class, Class::Refused);
    assert!(stack.is_free());
}

#[tokio::test]
async fn an_engine_that_closes_without_an_answer_is_reported() {
    let (engine, server) = Engine::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let _rude = AbortOnDropHandle::new(tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let _ = socket.read(&mut [0; 1024]).await;
        }
    }));
    let mut stack = Stack::before(engine, server, &url, |_| {}).await;
    let reply = stack.send(TRANSCRIBE, Body::from("audio")).await.unwrap();
    assert_eq!((reply.status, reply.header("x-speechstack-retry")), (StatusCode::BAD_GATEWAY, "elsewhere"));
    assert_eq!(stack.hinted().await.class, Class::Refused);
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_cut_for_the_client_too() {
    let mut stack = Stack::start().await;
    *stack.engine.reply.lock() = Reply::Cut("application/json", Bytes::from_static(b"{\"text\":"));
    let reply = stack.send(TRANSCRIBE, Body::from("audio")).await.unwrap();
    assert_eq!((reply.status, reply.body), (StatusCode::OK, None));
    assert_eq!(stack.hinted().await.class, Class::Refused);
    eventually("the lane is free", || stack.lane.view().running.is_empty()).await;
}

#[tokio::test]
async fn a_silent_engine_costs_the_client_its_deadline_and_keeps_the_lane() {
    let mut stack = Stack::with(impatient).await;
    let first = occupied(&stack).await;
    let reply = first.await.unwrap();
    assert_eq!(
        (reply.status, reply.header("x-speechstack-retry")),
        (StatusCode::GATEWAY_TIMEOUT, "elsewhere")
    );
    assert!(matches!(stack.observed().await, Observation::Loss { .. }));
    assert_eq!(stack.lane.view().running.len(), 1);
    // A late answer is progress.
    stack.engine.gate.add_permits(1);
    assert!(matches!(stack.observed().await, Observation::Success(_)));
    eventually("the lane is free", || stack.lane.view().running.is_empty()).await;
}

#[tokio::test]
async fn a_lost_input_that_was_served_before_is_given_no_more_time() {
    let mut stack = Stack::with(impatient).await;
    assert_eq!(stack.post(TRANSCRIBE, b"first").await.status(), 200);
    assert!(matches!(stack.observed().await, Observation::Success(_)));
    assert_eq!(occupied(&stack).await.await.unwrap().status, 504);
    assert!(matches!(stack.observed().await, Observation::Loss { .. }));
    stack.engine.gate.add_permits(1);
    assert!(matches!(stack.observed().await, Observation::Success(_)));
    assert_eq!(stack.post(TRANSCRIBE, b"new").await.status(), 504);
    let cut = stack.forward.cut.lock();
    let least = |body| cut.least(InputHash::of(body));
    assert_eq!((least(b"first"), least(b"new").is_some()), (None, true));
}

#[tokio::test]
async fn a_lost_job_can_be_forgotten_and_others_go_on() {
    let mut stack = Stack::with(|policy| {
        policy.lane.jobs = 2;
        policy.hang.deadline_floor = Duration::from_millis(100);
        policy.hang.deadline_factor = 1.0;
    })
    .await;
    let lost = occupied(&stack).await;
    let mut request = stack.request(TRANSCRIBE, Body::from("long"));
    request.headers_mut().insert("x-speechstack-audio-seconds", HeaderValue::from_static("9000"));
    let long = stack.client.request(request);
    let long = tokio::spawn(async move { long.await.unwrap().status() });
    assert_eq!(lost.await.unwrap().status, 504);
    assert!(matches!(stack.observed().await, Observation::Loss { .. }));
    eventually("both run", || stack.engine.running.load(SeqCst) == 2).await;
    stack.lane.forget_lost();
    eventually("the lost one is gone", || stack.lane.view().running.len() == 1).await;
    stack.engine.gate.add_permits(2);
    assert_eq!(long.await.unwrap(), 200);
}

#[tokio::test]
async fn a_replaced_instance_frees_the_lane_and_sends_its_requests_elsewhere() {
    let mut stack = Stack::start().await;
    let first = occupied(&stack).await;
    let second = stack.send(TRANSCRIBE, Body::from("second"));
    eventually("the second job waits", || stack.lane.view().waiting == 1).await;
    stack.forward.instance_changed();
    for reply in [first.await.unwrap(), second.await.unwrap()] {
        assert_eq!(
            (reply.status, reply.header("x-speechstack-retry")),
            (StatusCode::SERVICE_UNAVAILABLE, "elsewhere")
        );
    }
    eventually("the lane is free", || stack.is_free()).await;
    stack.nothing_observed();
    stack.engine.gate.add_permits(10);
    assert_eq!(stack.post(TRANSCRIBE, b"next").await.status(), 200);
}

#[tokio::test]
async fn an_answer_that_stalls_in_the_middle_is_cut_and_keeps_the_lane() {
    let mut stack = Stack::with(impatient).await;
    let (frames, receiver) = mpsc::channel(1);
    *stack.engine.reply.lock() = Reply::Stream(Arc::new(tokio::sync::Mutex::new(receiver)));
    frames.send(Bytes::from_static(b"one ")).await.unwrap();
    let reply = stack.send(TRANSCRIBE, Body::from("audio")).await.unwrap();
    assert_eq!((reply.status, reply.body), (StatusCode::OK, None));
    assert!(matches!(stack.observed().await, Observation::Loss { .. }));
    assert_eq!(stack.lane.view().running.len(), 1);
    drop(frames);
    eventually("the lane is free", || stack.lane.view().running.is_empty()).await;
}
