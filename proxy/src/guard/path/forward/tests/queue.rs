//! Admission, the lane and clients that leave.

use crate::guard::path::forward::tests::*;

#[tokio::test]
async fn jobs_wait_in_line_and_beyond_it_are_refused() {
    let stack = Stack::with(|policy| policy.lane.max_waiting = 1).await;
    let first = occupied(&stack).await;
    let second = stack.send(TRANSCRIBE, Body::from("second"));
    eventually("the second job waits", || stack.lane.view().waiting == 1).await;
    let third = stack.post(TRANSCRIBE, b"third").await;
    assert_eq!(third.status(), 429);
    assert_eq!(third.headers()["x-speechstack-retry"], "elsewhere");
    assert!(third.headers()["retry-after"].to_str().unwrap().parse::<u64>().unwrap() >= 1);
    stack.engine.gate.add_permits(2);
    assert_eq!(first.await.unwrap().status, 200);
    assert_eq!(second.await.unwrap().status, 200);
    assert_eq!(stack.engine.most_running.load(SeqCst), 1);
}

#[tokio::test]
async fn an_engine_out_of_rotation_refuses_without_reading() {
    let stack = Stack::start().await;
    stack.standing.send_replace(Standing {
        state: State::Wedged,
        class: Some(Class::Sticky),
        weight: 0.0,
        recovery: Some(Duration::from_secs(9)),
    });
    // The body never comes.
    let (_sender, body) = upload();
    let response = stack.client.request(stack.request(TRANSCRIBE, body)).await.unwrap();
    assert_eq!(response.status(), 503);
    let headers = response.headers();
    assert_eq!(headers["x-speechstack-retry"], "elsewhere");
    assert_eq!(headers["x-speechstack-state"], "wedged");
    assert_eq!(headers["x-speechstack-class"], "A");
    let after: u64 = headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((9..=11).contains(&after), "{after}");
    assert_eq!(stack.engine.heads.load(SeqCst), 0);
}

#[tokio::test]
async fn a_eject_sends_all_who_wait_or_upload_elsewhere_at_once() {
    let stack = Stack::start().await;
    let _first = occupied(&stack).await;
    let waiting = stack.send(TRANSCRIBE, Body::from("second"));
    let (_sender, body) = upload();
    let uploading = stack.send(TRANSCRIBE, body);
    eventually("both wait", || (stack.lane.view().waiting, stack.lane.view().uploading) == (1, 1)).await;
    stack.lane.eject();
    for reply in [waiting.await.unwrap(), uploading.await.unwrap()] {
        assert_eq!(reply.status, 503);
        assert_eq!(reply.header("x-speechstack-retry"), "elsewhere");
    }
    assert_eq!(stack.engine.complete.load(SeqCst), 1);
}

#[tokio::test]
async fn the_upload_overlaps_the_queue_but_its_tail_waits_for_the_lane() {
    let stack = Stack::start().await;
    let first = occupied(&stack).await;
    let before = stack.engine.received.load(SeqCst);
    let (sender, body) = upload();
    let second = stack.send(TRANSCRIBE, body);
    for _ in 0..64 {
        sender.send(Bytes::from(vec![7; 16 * 1024])).await.unwrap();
    }
    drop(sender);
    eventually("most of the second upload is at the engine", || {
        stack.engine.received.load(SeqCst) - before > 800 * 1024
    })
    .await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(stack.engine.received.load(SeqCst) - before < 1024 * 1024);
    assert_eq!(stack.engine.complete.load(SeqCst), 1);
    stack.engine.gate.add_permits(2);
    assert_eq!(first.await.unwrap().status, 200);
    assert_eq!(second.await.unwrap().status, 200);
    assert_eq!(stack.engine.received.load(SeqCst) - before, 1024 * 1024);
    assert_eq!(stack.engine.most_running.load(SeqCst), 1);
}

#[tokio::test]
async fn an_empty_request_waits_for_the_lane_too() {
    let stack = Stack::start().await;
    let first = occupied(&stack).await;
    let empty = stack.send(TRANSCRIBE, Body::empty());
    eventually("the empty request waits", || stack.lane.view().waiting == 1).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(stack.engine.complete.load(SeqCst), 1);
    stack.engine.gate.add_permits(2);
    assert_eq!((first.await.unwrap().status, empty.await.unwrap().status), (StatusCode::OK, StatusCode::OK));
}

#[tokio::test]
async fn a_slow_upload_does_not_hold_the_lane() {
    let stack = Stack::start().await;
    let (sender, body) = upload();
    let slow = stack.send(TRANSCRIBE, body);
    sender.send(Bytes::from_static(b"begin")).await.unwrap();
    eventually("the slow upload has a place", || stack.lane.view().uploading == 1).await;
    assert_eq!(stack.post(TRANSCRIBE, b"quick").await.status(), 200);
    drop(sender);
    assert_eq!(slow.await.unwrap().status, 200);
}

#[tokio::test]
async fn a_client_that_leaves_while_queued_leaves_no_job() {
    let stack = Stack::start().await;
    let first = occupied(&stack).await;
    for chunked in [false, true] {
        let mut socket = TcpStream::connect(stack.address).await.unwrap();
        let framing = if chunked { "transfer-encoding: chunked" } else { "content-length: 5" };
        let body = if chunked { "5\r\naudio\r\n0\r\n\r\n" } else { "audio" };
        let request = format!("POST {TRANSCRIBE} HTTP/1.1\r\nhost: x\r\n{framing}\r\n\r\n{body}");
        socket.write_all(request.as_bytes()).await.unwrap();
        eventually("it waits", || stack.lane.view().waiting == 1).await;
        drop(socket);
        eventually("its place is free", || stack.lane.view().waiting == 0).await;
    }
    // The engine's connections are cut, which it sees as bodies that break off.
    eventually("both calls are cut", || stack.engine.broken.load(SeqCst) == 2).await;
    stack.engine.gate.add_permits(10);
    first.await.unwrap();
    assert_eq!(stack.post(TRANSCRIBE, b"next").await.status(), 200);
    assert_eq!(stack.engine.complete.load(SeqCst), 2);
}

#[tokio::test]
async fn a_client_that_leaves_in_the_middle_of_its_upload_leaves_no_job() {
    let mut stack = Stack::start().await;
    let mut socket = TcpStream::connect(stack.address).await.unwrap();
    let head = format!("POST {TRANSCRIBE} HTTP/1.1\r\nhost: x\r\ncontent-length: 500\r\n\r\nhalf");
    socket.write_all(head.as_bytes()).await.unwrap();
    eventually("the engine has its head", || stack.engine.heads.load(SeqCst) == 1).await;
    drop(socket);
    eventually("the call is cut", || stack.engine.broken.load(SeqCst) == 1).await;
    eventually("its place is free", || stack.lane.view().uploading == 0).await;
    stack.nothing_observed();
}

#[tokio::test]
async fn a_client_that_leaves_while_its_job_runs_leaves_the_lane_charged_until_the_answer() {
    let mut stack = Stack::start().await;
    let first = occupied(&stack).await;
    first.abort();
    assert!(first.await.is_err());
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(stack.lane.view().running.len(), 1);
    assert_eq!(stack.inputs(), [InputHash::of(b"first")]);
    stack.engine.gate.add_permits(1);
    eventually("the lane is free", || stack.lane.view().running.is_empty()).await;
    assert!(matches!(stack.observed().await, Observation::Success(_)));
    assert!(stack.inputs().is_empty());
}

#[tokio::test]
async fn a_refused_upload_is_read_so_that_its_connection_serves_on() {
    let stack = Stack::start().await;
    stack.lane.eject();
    let mut connection = TcpStream::connect(stack.address).await.unwrap();
    let upload = vec![0; 4 << 20];
    for _ in 0..3 {
        let head =
            format!("POST {TRANSCRIBE} HTTP/1.1\r\nhost: guard\r\ncontent-length: {}\r\n\r\n", upload.len());
        connection.write_all(head.as_bytes()).await.unwrap();
        connection.write_all(&upload).await.unwrap();
        let mut reply = [0; 12];
        connection.read_exact(&mut reply).await.unwrap();
        assert_eq!(&reply, b"HTTP/1.1 503");
        let mut rest = vec![0; 4096];
        while !rest.windows(4).any(|end| end == b"\r\n\r\n") {
            assert!(connection.read(&mut rest).await.unwrap() > 0);
        }
    }
}

#[tokio::test]
async fn one_slow_upload_of_a_long_file_does_not_turn_short_requests_away() {
    let stack = Stack::start().await;
    let (sender, body) = upload();
    let mut request = stack.request(TRANSCRIBE, body);
    request.headers_mut().insert("x-speechstack-audio-seconds", HeaderValue::from_static("80000"));
    let long = tokio::spawn(stack.client.request(request));
    sender.send(Bytes::from_static(b"begin")).await.unwrap();
    eventually("the long upload has a place", || stack.lane.view().uploading == 1).await;
    for _ in 0..3 {
        let reply = stack.send(TRANSCRIBE, Body::from("short")).await.unwrap();
        assert_eq!((reply.status, reply.header("x-speechstack-queue-seconds")), (StatusCode::OK, "0.000"));
    }
    drop(sender);
    assert_eq!(long.await.unwrap().unwrap().status(), 200);
}

#[tokio::test]
async fn uploads_beyond_the_bound_are_refused() {
    let stack = Stack::with(|policy| policy.lane.max_uploads = 1).await;
    let (_sender, body) = upload();
    let _slow = stack.send(TRANSCRIBE, body);
    eventually("the upload has a place", || stack.lane.view().uploading == 1).await;
    let refused = stack.post(TRANSCRIBE, b"short").await;
    assert_eq!(refused.status(), 429);
    assert_eq!(refused.headers()["x-speechstack-retry"], "elsewhere");
}

#[tokio::test]
async fn a_continuation_is_served_before_newcomers_and_by_a_full_lane() {
    let stack = Stack::with(|policy| policy.lane.max_waiting = 1).await;
    let first = occupied(&stack).await;
    let newcomer = stack.send(TRANSCRIBE, Body::from("newcomer"));
    eventually("the newcomer waits", || stack.lane.view().waiting == 1).await;
    assert_eq!(stack.post(TRANSCRIBE, b"late").await.status(), 429);
    let mut request = stack.request(TRANSCRIBE, Body::from("continuation"));
    request.headers_mut().insert("x-speechstack-continues", HeaderValue::from_static("1"));
    let continuation = tokio::spawn(stack.client.request(request));
    eventually("both wait", || stack.lane.view().waiting == 2).await;
    stack.engine.gate.add_permits(1);
    first.await.unwrap();
    let input = InputHash::of(b"continuation");
    eventually("the continuation runs", || stack.inputs() == [input]).await;
    assert!(!stack.engine.head.lock().clone().unwrap().1.contains_key("x-speechstack-continues"));
    stack.engine.gate.add_permits(2);
    assert_eq!(continuation.await.unwrap().unwrap().status(), 200);
    assert_eq!(newcomer.await.unwrap().status, 200);
}

#[tokio::test]
async fn a_piece_of_a_long_file_lets_a_later_short_job_go_first() {
    let stack = Stack::start().await;
    let first = occupied(&stack).await;
    let mut request = stack.request(TRANSCRIBE, Body::from("piece"));
    request.headers_mut().insert("x-speechstack-priority", HeaderValue::from_static("long"));
    let piece = tokio::spawn(stack.client.request(request));
    eventually("the piece waits", || stack.lane.view().waiting == 1).await;
    let short = stack.send(TRANSCRIBE, Body::from("short"));
    eventually("both wait", || stack.lane.view().waiting == 2).await;
    stack.engine.gate.add_permits(1);
    first.await.unwrap();
    eventually("the short job runs", || stack.inputs() == [InputHash::of(b"short")]).await;
    assert!(!stack.engine.head.lock().clone().unwrap().1.contains_key("x-speechstack-priority"));
    stack.engine.gate.add_permits(2);
    assert_eq!(short.await.unwrap().status, 200);
    assert_eq!(piece.await.unwrap().unwrap().status(), 200);
}

#[tokio::test]
async fn an_upload_that_stalls_or_drips_is_given_up_and_charged_to_no_engine() {
    for drips in [false, true] {
        let mut stack =
            Stack::with(|policy| policy.connections.body_timeout = Duration::from_millis(300)).await;
        let learned = stack.forward.predictor();
        let (sender, body) = upload();
        let slow = stack.send(TRANSCRIBE, body);
        let dripping = tokio::spawn(async move {
            while sender.send(Bytes::from_static(b"x")).await.is_ok() {
                let pause = if drips { Duration::from_millis(50) } else { Duration::from_secs(100) };
                tokio::time::sleep(pause).await;
            }
        });
        let reply = slow.await.unwrap();
        assert_eq!((reply.status, reply.header("x-speechstack-retry")), (StatusCode::REQUEST_TIMEOUT, ""));
        dripping.abort();
        eventually("the engine's call is cut", || stack.engine.broken.load(SeqCst) == 1).await;
        assert!(stack.is_free());
        assert_eq!(stack.engine.complete.load(SeqCst), 0);
        assert_eq!(stack.forward.predictor(), learned);
        stack.nothing_observed();
    }
}

#[tokio::test]
async fn what_is_no_job_is_given_up_when_its_upload_stalls() {
    let stack = Stack::with(|policy| policy.connections.body_timeout = Duration::from_millis(200)).await;
    let (_sender, body) = upload();
    assert_eq!(stack.send("/v1/models", body).await.unwrap().status, StatusCode::REQUEST_TIMEOUT);
}

#[tokio::test]
async fn an_answer_before_the_end_of_the_upload_teaches_nothing() {
    let mut stack = Stack::start().await;
    *stack.engine.reply.lock() = Reply::Early(StatusCode::OK);
    let learned = stack.forward.predictor();
    let (sender, body) = upload();
    let early = stack.send(TRANSCRIBE, body);
    sender.send(Bytes::from(vec![0; 4096])).await.unwrap();
    assert_eq!(early.await.unwrap().status, 200);
    assert_eq!(stack.forward.predictor(), learned);
    stack.nothing_observed();
}

#[tokio::test]
async fn a_client_that_waits_for_100_continue_is_served() {
    let stack = Stack::start().await;
    let mut socket = TcpStream::connect(stack.address).await.unwrap();
    let head =
        format!("POST {TRANSCRIBE} HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n");
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut interim = [0; 25];
    socket.read_exact(&mut interim).await.unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    socket.write_all(b"audio").await.unwrap();
    let mut reply = [0; 15];
    socket.read_exact(&mut reply).await.unwrap();
    assert_eq!(&reply, b"HTTP/1.1 200 OK");
}
