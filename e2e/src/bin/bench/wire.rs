//! The smallest HTTP/1.1 client that can measure: one blocking connection, prepared bytes, no allocation per request.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// As long as Python's HTTP clients make it.
const BOUNDARY: &str = "d5c47b64cdb14f6d9f1fd8f5a4c0b7e2";
/// File name of all uploads; the fake engine knows them by it.
pub const FILE_NAME: &str = "bench-clip.wav";
/// File name of the upload whose transcript is that of three hours of dialogue.
pub const DIALOGUE_NAME: &str = "dialogue-bench-clip.wav";

/// One connection.
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    filled: usize,
}

/// When and what came back.
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// Bytes of the body, chunk sizes included.
    pub bytes: u64,
    /// From the last byte sent to the first byte of the body.
    pub first_byte: Duration,
    /// The head and the beginning of the body, for messages.
    pub beginning: String,
}

impl Connection {
    /// Connects.
    pub fn open(address: SocketAddr) -> Result<Self> {
        let stream =
            TcpStream::connect(address).with_context(|| format!("unable to connect to {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(600)))?;
        Ok(Self { stream, buffer: vec![0; 256 * 1024], filled: 0 })
    }

    /// Sends a prepared request and reads the reply whole.
    pub fn exchange(&mut self, request: &[u8]) -> Result<Reply> {
        self.stream.write_all(request)?;
        self.reply(Instant::now())
    }

    /// Sends the head of an upload of `length` bytes, and nothing more of it.
    pub fn begin_upload(&mut self, path: &str, length: u64) -> Result<()> {
        let (head, tail) = multipart_around(FILE_NAME, length);
        let total = head.len() as u64 + length + tail.len() as u64;
        self.stream.write_all(request_head(path, &content_type(), total).as_bytes())?;
        Ok(self.stream.write_all(&head)?)
    }

    /// Sends more of an upload that was begun.
    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.stream.write_all(bytes)?)
    }

    /// Uploads a WAV file of about `length` bytes that never exists as a whole.
    pub fn upload(&mut self, path: &str, length: u64) -> Result<Reply> {
        let (head, tail) = multipart_around(FILE_NAME, length);
        let total = head.len() as u64 + length + tail.len() as u64;
        let mut sent = self.stream.write_all(request_head(path, &content_type(), total).as_bytes());
        sent = sent.and_then(|()| self.stream.write_all(&head));
        let samples = noise(64 * 1024);
        let mut left = length;
        while sent.is_ok() && left > 0 {
            let now = left.min(samples.len() as u64);
            sent = self.stream.write_all(&samples[..now as usize]);
            left -= now;
        }
        sent = sent.and_then(|()| self.stream.write_all(&tail));
        match sent {
            // An early reply explains why the other side stopped reading.
            Err(error)
                if error.kind() != ErrorKind::BrokenPipe && error.kind() != ErrorKind::ConnectionReset =>
            {
                Err(error.into())
            }
            _ => self.reply(Instant::now()),
        }
    }

    fn reply(&mut self, sent: Instant) -> Result<Reply> {
        self.filled = 0;
        let head = loop {
            self.fill()?;
            if let Some(end) = find(&self.buffer[..self.filled], b"\r\n\r\n") {
                break end + 4;
            }
            ensure!(self.filled < self.buffer.len(), "endless head");
        };
        let text = String::from_utf8_lossy(&self.buffer[..head]).to_lowercase();
        let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).context("no status")?;
        let header = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let length: Option<u64> = header("content-length:").and_then(|length| length.parse().ok());
        let chunked = header("transfer-encoding:").is_some_and(|encoding| encoding.contains("chunked"));
        if length == Some(0) {
            return Ok(Reply { status, bytes: 0, first_byte: sent.elapsed(), beginning: text });
        }
        if self.filled == head {
            self.fill()?;
        }
        let first_byte = sent.elapsed();
        let beginning = String::from_utf8_lossy(&self.buffer[..self.filled.min(head + 400)]).into_owned();
        let mut bytes = (self.filled - head) as u64;
        loop {
            let over = match (length, chunked) {
                (Some(length), _) => bytes >= length,
                (None, true) => self.buffer[..self.filled].ends_with(b"0\r\n\r\n"),
                (None, false) => bail!("a reply without length: {text}"),
            };
            if over {
                return Ok(Reply { status, bytes, first_byte, beginning });
            }
            // Only the end matters from here on.
            let keep = self.filled.min(8);
            self.buffer.copy_within(self.filled - keep..self.filled, 0);
            self.filled = keep;
            bytes += self.fill()? as u64;
        }
    }

    fn fill(&mut self) -> Result<usize> {
        let read = self.stream.read(&mut self.buffer[self.filled..])?;
        ensure!(read > 0, "the connection ended inside a reply");
        self.filled += read;
        Ok(read)
    }
}

/// A transcription of a WAV file of `length` bytes, ready to be sent.
pub fn transcription(length: u64) -> Vec<u8> {
    upload("/v1/audio/transcriptions", FILE_NAME, length)
}

/// A transcription with speakers of [`DIALOGUE_NAME`], ready to be sent.
pub fn dialogue(length: u64) -> Vec<u8> {
    upload("/api/audio/transcribe-with-speakers", DIALOGUE_NAME, length)
}

fn upload(path: &str, name: &str, length: u64) -> Vec<u8> {
    let (head, tail) = multipart_around(name, length);
    let total = head.len() as u64 + length + tail.len() as u64;
    let mut request = request_head(path, &content_type(), total).into_bytes();
    request.extend_from_slice(&head);
    request.extend_from_slice(&noise(length as usize));
    request.extend_from_slice(&tail);
    request
}

/// Bytes in which a search for a delimiter meets every other byte as often as in sound; the same ones each time.
pub fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_u32;
    let next = || {
        // Xorshift: G. Marsaglia, "Xorshift RNGs", 2003.
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state >> 24) as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

/// A request with a JSON body, ready to be sent.
pub fn json(path: &str, body: &str) -> Vec<u8> {
    let mut request = request_head(path, "application/json", body.len() as u64).into_bytes();
    request.extend_from_slice(body.as_bytes());
    request
}

fn content_type() -> String {
    format!("multipart/form-data; boundary={BOUNDARY}")
}

fn request_head(path: &str, content_type: &str, length: u64) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nhost: bench\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\n\r\n"
    )
}

/// What stands before and after the samples: form fields, the file part's head and a WAV header.
fn multipart_around(name: &str, samples: u64) -> (Vec<u8>, Vec<u8>) {
    let data = u32::try_from(samples).unwrap_or(u32::MAX - 36);
    let mut head = format!(
        "--{BOUNDARY}\r\ncontent-disposition: form-data; name=\"model\"\r\n\r\nwhisper-1\r\n\
         --{BOUNDARY}\r\ncontent-disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\
         content-type: audio/wav\r\n\r\n"
    )
    .into_bytes();
    head.extend_from_slice(b"RIFF");
    head.extend_from_slice(&(data + 36).to_le_bytes());
    head.extend_from_slice(b"WAVEfmt \x10\0\0\0\x01\0\x01\0");
    head.extend_from_slice(&16_000u32.to_le_bytes());
    head.extend_from_slice(&32_000u32.to_le_bytes());
    head.extend_from_slice(b"\x02\0\x10\0data");
    head.extend_from_slice(&data.to_le_bytes());
    (head, format!("\r\n--{BOUNDARY}--\r\n").into_bytes())
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}
