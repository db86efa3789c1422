//! Splits what comes out of a pipe into lines of bounded length.

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};

/// A longer line is given in pieces, each as a line.
pub const MAX_LINE: usize = 16 * 1024;

/// Gives each line to `take`, with one line feed at its end, until the pipe ends or breaks.
pub async fn read(pipe: impl AsyncRead + Unpin, mut take: impl FnMut(&[u8])) {
    let mut reader = BufReader::with_capacity(MAX_LINE, pipe);
    let mut line = Vec::new();
    while let Ok(chunk) = reader.fill_buf().await {
        if chunk.is_empty() {
            break;
        }
        let room = chunk.get(..MAX_LINE - line.len()).unwrap_or(chunk);
        let end = memchr::memchr(b'\n', room);
        let used = end.map_or(room.len(), |at| at + 1);
        line.extend_from_slice(room.get(..used).unwrap_or(room));
        reader.consume(used);
        if end.is_some() || line.len() >= MAX_LINE {
            give(&mut line, &mut take);
        }
    }
    if !line.is_empty() {
        give(&mut line, &mut take);
    }
}

fn give(line: &mut Vec<u8>, take: &mut impl FnMut(&[u8])) {
    if !line.ends_with(b"\n") {
        line.push(b'\n');
    }
    take(line);
    line.clear();
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn lines(input: &[u8]) -> Vec<Vec<u8>> {
        let mut lines = Vec::new();
        read(input, |line| lines.push(line.to_vec())).await;
        lines
    }

    #[tokio::test]
    async fn every_byte_arrives_and_each_line_has_an_end() {
        assert!(lines(b"").await.is_empty());
        assert_eq!(lines(b"a\n\nb").await, [b"a\n".as_slice(), b"\n", b"b\n"]);
        assert_eq!(lines(b"\xff\x00\r\n").await, [b"\xff\x00\r\n".as_slice()]);
    }

    #[tokio::test]
    async fn a_long_line_comes_in_pieces() {
        let mut input = vec![b'x'; 2 * MAX_LINE + 3];
        input.extend_from_slice(b"\nend\n");
        let lengths: Vec<usize> = lines(&input).await.iter().map(Vec::len).collect();
        assert_eq!(lengths, [MAX_LINE + 1, MAX_LINE + 1, 4, 4]);
        // A line that ends just where a piece does.
        let mut input = vec![b'x'; MAX_LINE - 1];
        input.extend_from_slice(b"\ny\n");
        let lengths: Vec<usize> = lines(&input).await.iter().map(Vec::len).collect();
        assert_eq!(lengths, [MAX_LINE, 2]);
    }
}
