//! Clients with a bad connection.

use std::time::Duration;

use anyhow::Result;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::sleep;

/// Sends 8 kB of a larger file each second, for so many seconds, and goes.
///
/// # Errors
/// When it cannot connect.
pub async fn upload(url: &str, seconds: u32) -> Result<()> {
    let address = url.trim_start_matches("http://");
    let mut client = TcpStream::connect(address).await?;
    let head = format!(
        "POST /v1/audio/transcriptions HTTP/1.1\r\nHost: {address}\r\nContent-Length: 640000\r\n\
         Content-Type: multipart/form-data; boundary=x\r\n\r\n\
         --x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\n\r\n"
    );
    client.write_all(head.as_bytes()).await?;
    for _ in 0..seconds {
        // A refusal ends the connection, which is as good an end.
        if client.write_all(&[0; 8000]).await.is_err() {
            break;
        }
        sleep(Duration::from_secs(1)).await;
    }
    Ok(())
}

/// Asks for speech, reads 2 kB of it each second, for so many seconds, and goes.
///
/// # Errors
/// When it cannot connect or its connection breaks.
pub async fn reader(url: &str, text: &str, seconds: u32) -> Result<()> {
    let address = url.trim_start_matches("http://");
    let mut client = TcpStream::connect(address).await?;
    let body =
        json!({"model": "tts-1", "voice": "alloy", "input": text, "response_format": "pcm"}).to_string();
    let head = format!(
        "POST /v1/audio/speech HTTP/1.1\r\nHost: {address}\r\nContent-Length: {}\r\n\
         Content-Type: application/json\r\n\r\n",
        body.len()
    );
    client.write_all(head.as_bytes()).await?;
    client.write_all(body.as_bytes()).await?;
    let mut buffer = [0; 2000];
    for _ in 0..seconds {
        if client.read(&mut buffer).await? == 0 {
            break;
        }
        sleep(Duration::from_secs(1)).await;
    }
    Ok(())
}
