//! Opus in WebM, as browsers' media sources take it: a header, then clusters of unknown total length (RFC 8794, RFC 9559).

use bytes::Bytes;

use super::Error;
use super::frames::{Frames, GRANULE_RATE, head};

/// Milliseconds of a frame.
const FRAME_MILLIS: u64 = 20;
/// Frames of a cluster: a block's time is 16 bits from its cluster's, and players seek to clusters.
const CLUSTER_FRAMES: u64 = 50;
/// Size that says "until the end": the file is written as a stream.
const UNKNOWN: [u8; 8] = [0x01, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF];
/// What a decoder reads ahead of a seek, nanoseconds.
const SEEK_PRE_ROLL: u64 = 80_000_000;

pub(super) struct Encoder {
    frames: Frames,
    out: Vec<u8>,
    /// Frames written.
    written: u64,
}

impl Encoder {
    pub(super) fn new(rate: u32) -> Result<Self, Error> {
        Ok(Self { frames: Frames::new(rate)?, out: Vec::new(), written: 0 })
    }

    pub(super) fn encode(&mut self, pcm: &[i16]) -> Result<Bytes, Error> {
        for packet in self.frames.push(pcm)? {
            self.block(&packet, None);
        }
        Ok(std::mem::take(&mut self.out).into())
    }

    /// The last samples; what silence fills of the last frame is marked as padding to discard.
    pub(super) fn finish(mut self) -> Result<Bytes, Error> {
        let (packets, end) = self.frames.finish()?;
        let total = self.written + packets.len() as u64;
        let padding = (total * FRAME_MILLIS * GRANULE_RATE / 1000).saturating_sub(end);
        let last = packets.len().saturating_sub(1);
        for (nth, packet) in packets.iter().enumerate() {
            let padding = (nth == last && padding > 0).then_some(padding * 1_000_000_000 / GRANULE_RATE);
            self.block(packet, padding);
        }
        Ok(self.out.into())
    }

    /// A frame, which in front of it may begin the file and a cluster.
    fn block(&mut self, packet: &[u8], padding: Option<u64>) {
        if self.written == 0 {
            self.header();
        }
        let within = self.written % CLUSTER_FRAMES;
        if within == 0 {
            self.out.extend([0x1F, 0x43, 0xB6, 0x75]);
            self.out.extend(UNKNOWN);
            element(&mut self.out, &[0xE7], &number(self.written * FRAME_MILLIS));
        }
        // Track 1, time within the cluster, a key frame.
        let mut block = vec![0x81];
        block.extend(((within * FRAME_MILLIS) as i16).to_be_bytes());
        block.push(if padding.is_some() { 0x00 } else { 0x80 });
        block.extend(packet);
        match padding {
            None => element(&mut self.out, &[0xA3], &block),
            Some(nanoseconds) => {
                let mut group = Vec::new();
                element(&mut group, &[0xA1], &block);
                element(&mut group, &[0x75, 0xA2], &(nanoseconds as i64).to_be_bytes());
                element(&mut self.out, &[0xA0], &group);
            }
        }
        self.written += 1;
    }

    fn header(&mut self) {
        let pre_skip = self.frames.pre_skip();
        let mut ebml = Vec::new();
        for (id, value) in [(0x4286_u16, 1), (0x42F7, 1), (0x42F2, 4), (0x42F3, 8)] {
            element(&mut ebml, &id.to_be_bytes(), &number(value));
        }
        element(&mut ebml, &[0x42, 0x82], b"webm");
        element(&mut ebml, &[0x42, 0x87], &number(4));
        element(&mut ebml, &[0x42, 0x85], &number(2));
        element(&mut self.out, &[0x1A, 0x45, 0xDF, 0xA3], &ebml);
        self.out.extend([0x18, 0x53, 0x80, 0x67]);
        self.out.extend(UNKNOWN);
        let mut info = Vec::new();
        element(&mut info, &[0x2A, 0xD7, 0xB1], &number(1_000_000));
        element(&mut info, &[0x4D, 0x80], b"speechstack");
        element(&mut info, &[0x57, 0x41], b"speechstack");
        element(&mut self.out, &[0x15, 0x49, 0xA9, 0x66], &info);
        let mut audio = Vec::new();
        element(&mut audio, &[0xB5], &48_000_f64.to_be_bytes());
        element(&mut audio, &[0x9F], &number(1));
        let mut track = Vec::new();
        for (id, value) in [(0xD7_u8, 1), (0x83, 2)] {
            element(&mut track, &[id], &number(value));
        }
        element(&mut track, &[0x73, 0xC5], &number(1));
        element(&mut track, &[0x86], b"A_OPUS");
        element(&mut track, &[0x56, 0xAA], &number(pre_skip * 1_000_000_000 / GRANULE_RATE));
        element(&mut track, &[0x56, 0xBB], &number(SEEK_PRE_ROLL));
        element(&mut track, &[0x63, 0xA2], &head(pre_skip, self.frames.rate()));
        element(&mut track, &[0xE1], &audio);
        let mut tracks = Vec::new();
        element(&mut tracks, &[0xAE], &track);
        element(&mut self.out, &[0x16, 0x54, 0xAE, 0x6B], &tracks);
    }
}

/// Writes an element; its size has as few bytes as it takes.
fn element(out: &mut Vec<u8>, id: &[u8], body: &[u8]) {
    out.extend(id);
    let len = body.len() as u64;
    match len {
        0..0x7F => out.push(0x80 | len as u8),
        0x7F..0x3FFF => out.extend((0x4000 | len as u16).to_be_bytes()),
        _ => out.extend((0x1000_0000 | len as u32).to_be_bytes()),
    }
    out.extend(body);
}

/// An unsigned number in as few bytes as it takes.
fn number(value: u64) -> Vec<u8> {
    let bytes = value.to_be_bytes();
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count().min(7);
    bytes[zeros..].to_vec()
}
