//! Engine, guard and gateway where there is IPv6 alone.

use std::net::{Ipv6Addr, SocketAddr};

use reqwest::multipart::{Form, Part};
use serde_json::Value;
use tokio::net::TcpListener;

use crate::app::Bound;
use crate::config::Config;
use crate::guard::heal::golden::CLIP_A;
use crate::guard::tests::*;

const LOCAL: SocketAddr = SocketAddr::new(std::net::IpAddr::V6(Ipv6Addr::LOCALHOST), 0);

#[tokio::test(flavor = "multi_thread")]
async fn a_request_goes_through_gateway_and_guard_over_ipv6() {
    let Ok(listener) = TcpListener::bind(LOCAL).await else {
        return; // this kernel has no IPv6
    };
    let (_fake, address, _serving) = Fake::serve_on(listener);
    let engine = config::Engine {
        name: "pod-0".into(),
        url: format!("http://{address}"),
        guard: LOCAL,
        guard_admin: LOCAL,
        ..config::Engine::example()
    };
    let of_guard = Config { guard: policy(), engines: vec![engine.clone()], ..Config::default() };
    let guard = Bound::guard(&of_guard, None).await.unwrap();
    let (traffic, admin) = (guard.guards[0].address, guard.guards[0].admin);
    let engine = config::Engine { guard: traffic, guard_admin: admin, ..engine };
    let mut of_gateway = Config { engines: vec![engine], ..Config::default() };
    (of_gateway.gateway.listen, of_gateway.gateway.admin) = (LOCAL, LOCAL);
    let gateway = Bound::gateway(of_gateway).await.unwrap();

    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let (public, admin) = (gateway.public.unwrap(), gateway.admin.unwrap());
    assert!([address, traffic, public, admin].iter().all(SocketAddr::is_ipv6));
    let ready = async {
        while client.get(format!("http://{admin}/readyz")).send().await.unwrap().status() != 200 {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(TEST_TIMEOUT, ready).await.unwrap();
    let form = Form::new().part("file", Part::bytes(CLIP_A.wav.to_vec()).file_name("clip.wav"));
    let url = format!("http://{public}/v1/audio/transcriptions");
    let reply = client.post(url).multipart(form).send().await.unwrap();
    assert_eq!(reply.status(), 200);
    assert_eq!(reply.json::<Value>().await.unwrap()["text"], CLIP_A.words);
    tokio::join!(gateway.stop(), guard.stop());
}
