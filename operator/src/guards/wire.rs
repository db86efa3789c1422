//! Just enough HTTP/1.1 to read one endless response: with thousands of streams open, no buffer may outlive a read.

use std::io;

use bytes::Bytes;
use tokio::net::TcpStream;

/// Bytes taken from a socket at once. The buffer lives on the stack while bytes are there.
pub(super) const READ: usize = 4096;
/// Longest head of a response.
const HEAD: usize = 8192;
/// Longest line that gives a chunk's size.
const SIZE_LINE: usize = 64;

/// The response is not what was expected.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The connection broke.
    #[error("connection broke")]
    Broken(#[source] io::Error),
    /// The connection ended in the head.
    #[error("connection ended before a response")]
    Ended,
    /// Not HTTP/1.1 as far as it is understood here.
    #[error("not an HTTP response")]
    Malformed,
    /// Not 200.
    #[error("status {0}")]
    Status(u16),
}

/// Reads what has arrived, waiting for the first byte; empty at the end.
async fn read(stream: &TcpStream) -> io::Result<Bytes> {
    loop {
        stream.readable().await?;
        let mut buffer = [0_u8; READ];
        match stream.try_read(&mut buffer) {
            Ok(length) => return Ok(Bytes::copy_from_slice(buffer.get(..length).unwrap_or_default())),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

/// Reads the response's head; how its body is framed, and what came of the body already.
pub(super) async fn head(stream: &TcpStream) -> Result<(Framing, Bytes), Error> {
    let mut seen: Vec<u8> = Vec::new();
    loop {
        let bytes = read(stream).await.map_err(Error::Broken)?;
        if bytes.is_empty() {
            return Err(Error::Ended);
        }
        seen.extend_from_slice(&bytes);
        if let Some(at) = seen.windows(4).position(|window| window == b"\r\n\r\n") {
            let framing = parse_head(seen.get(..at).unwrap_or_default())?;
            return Ok((framing, Bytes::copy_from_slice(seen.get(at + 4..).unwrap_or_default())));
        }
        if seen.len() > HEAD {
            return Err(Error::Malformed);
        }
    }
}

fn parse_head(head: &[u8]) -> Result<Framing, Error> {
    let text = std::str::from_utf8(head).map_err(|_| Error::Malformed)?;
    let mut lines = text.split("\r\n");
    let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.")).ok_or(Error::Malformed)?;
    let status: u16 = status.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or(Error::Malformed)?;
    if status != 200 {
        return Err(Error::Status(status));
    }
    let chunked = lines.filter_map(|line| line.split_once(':')).any(|(name, value)| {
        name.eq_ignore_ascii_case("transfer-encoding") && value.trim().eq_ignore_ascii_case("chunked")
    });
    Ok(if chunked { Framing::Chunked(Chunk::Size(Vec::new())) } else { Framing::UntilClose })
}

/// How a body is framed, and where in it we are.
#[derive(Debug)]
pub(super) enum Framing {
    /// It ends with the connection.
    UntilClose,
    /// In chunks.
    Chunked(Chunk),
}

/// Where in a chunked body we are.
#[derive(Debug)]
pub(super) enum Chunk {
    /// In the line with the size.
    Size(Vec<u8>),
    /// In data, with so many bytes to come.
    Data(usize),
    /// In the line end after data, with so many bytes to come.
    LineEnd(u8),
    /// After the last chunk.
    End,
}

impl Framing {
    /// The body's part of what was read; `None` once the body is complete.
    pub(super) fn decode(&mut self, mut bytes: Bytes) -> Result<Option<Bytes>, Error> {
        let Self::Chunked(chunk) = self else { return Ok(Some(bytes)) };
        let mut body = Vec::new();
        while !bytes.is_empty() {
            match chunk {
                Chunk::Size(line) => {
                    let end = bytes.iter().position(|byte| *byte == b'\n');
                    let taken = bytes.split_to(end.map_or(bytes.len(), |at| at + 1));
                    line.extend_from_slice(&taken);
                    if line.len() > SIZE_LINE {
                        return Err(Error::Malformed);
                    }
                    if end.is_some() {
                        *chunk = match size(line)? {
                            0 => Chunk::End,
                            size => Chunk::Data(size),
                        };
                    }
                }
                Chunk::Data(left) => {
                    let taken = bytes.split_to((*left).min(bytes.len()));
                    body.extend_from_slice(&taken);
                    *left -= taken.len();
                    if *left == 0 {
                        *chunk = Chunk::LineEnd(2);
                    }
                }
                Chunk::LineEnd(left) => {
                    let taken = bytes.split_to(usize::from(*left).min(bytes.len()));
                    *left -= u8::try_from(taken.len()).unwrap_or(*left);
                    if *left == 0 {
                        *chunk = Chunk::Size(Vec::new());
                    }
                }
                Chunk::End => break,
            }
        }
        if body.is_empty() && matches!(chunk, Chunk::End) { Ok(None) } else { Ok(Some(body.into())) }
    }
}

fn size(line: &[u8]) -> Result<usize, Error> {
    let text = std::str::from_utf8(line).map_err(|_| Error::Malformed)?;
    let digits = text.split(';').next().unwrap_or_default().trim();
    usize::from_str_radix(digits, 16).map_err(|_| Error::Malformed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decode(parts: &[&[u8]]) -> Result<Vec<u8>, Error> {
        let mut framing = Framing::Chunked(Chunk::Size(Vec::new()));
        let mut body = Vec::new();
        for part in parts {
            match framing.decode(Bytes::copy_from_slice(part))? {
                Some(bytes) => body.extend_from_slice(&bytes),
                None => break,
            }
        }
        Ok(body)
    }

    #[test]
    fn heads_tell_framing_and_status() {
        let head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked";
        assert!(matches!(parse_head(head), Ok(Framing::Chunked(_))));
        assert!(matches!(parse_head(b"HTTP/1.0 200 OK"), Ok(Framing::UntilClose)));
        assert!(matches!(parse_head(b"HTTP/1.1 401 Unauthorized"), Err(Error::Status(401))));
        assert!(matches!(parse_head(b"SSH-2.0"), Err(Error::Malformed)));
    }

    #[test]
    fn sizes_that_are_none_are_refused() {
        assert!(matches!(decode(&[b"zz\r\n"]), Err(Error::Malformed)));
        assert!(matches!(decode(&[&[b'1'; 100]]), Err(Error::Malformed)));
    }

    proptest! {
        #[test]
        fn a_body_survives_any_split(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..50), 0..8),
            cuts in prop::collection::vec(1_usize..20, 1..20),
        ) {
            let mut raw = Vec::new();
            for chunk in &chunks {
                raw.extend_from_slice(format!("{:x};x=y\r\n", chunk.len()).as_bytes());
                raw.extend_from_slice(chunk);
                raw.extend_from_slice(b"\r\n");
            }
            raw.extend_from_slice(b"0\r\n\r\n");
            let mut parts = Vec::new();
            let mut rest = raw.as_slice();
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (part, tail) = rest.split_at((*cut).min(rest.len()));
                parts.push(part);
                rest = tail;
            }
            prop_assert_eq!(decode(&parts).unwrap(), chunks.concat());
        }
    }
}
