//! Files built by hand after their specifications, and files cut and damaged.

use proptest::prelude::*;

use super::*;

fn whole(file: &[u8]) -> Option<(f64, bool)> {
    of_len(file, file.len() as u64)
}

fn of_len(prefix: &[u8], total_len: u64) -> Option<(f64, bool)> {
    estimate(prefix, Some(total_len))
        .map(|estimate| ((estimate.seconds * 1000.0).round() / 1000.0, estimate.exact))
}

/// 64 kbit/s 24 kHz mono frames of 192 bytes and 24 ms.
fn mp3(frames: usize) -> Vec<u8> {
    let mut frame = [0; 192];
    frame[..4].copy_from_slice(&[0xFF, 0xF3, 0x84, 0xC0]);
    frame.repeat(frames)
}

fn boxed(kind: &[u8], body: &[u8]) -> Vec<u8> {
    [&(body.len() as u32 + 8).to_be_bytes()[..], kind, body].concat()
}

fn mp4(movie: &[u8]) -> Vec<u8> {
    [boxed(b"ftyp", b"M4A \0\0\0\0"), boxed(b"free", &[0; 9]), boxed(b"moov", movie)].concat()
}

fn mvhd(scale: u32, ticks: u32) -> Vec<u8> {
    boxed(b"mvhd", &[&[0; 12][..], &scale.to_be_bytes(), &ticks.to_be_bytes(), &[0; 80]].concat())
}

/// An EBML element with a size of one byte.
fn element(id: &[u8], body: &[u8]) -> Vec<u8> {
    [id, &[0x80 | body.len() as u8], body].concat()
}

fn webm(rest: &[&[u8]]) -> Vec<u8> {
    let header = element(&[0x1A, 0x45, 0xDF, 0xA3], &element(&[0x42, 0x82], b"webm"));
    let segment = b"\x18\x53\x80\x67\x01\xff\xff\xff\xff\xff\xff\xff";
    [&header, &segment[..], &rest.concat()].concat()
}

fn page(granule: u64, body: &[u8]) -> Vec<u8> {
    let mut lacing = vec![255; body.len() / 255];
    lacing.push((body.len() % 255) as u8);
    [b"OggS\0\0", &granule.to_le_bytes()[..], &[0; 12], &[lacing.len() as u8], &lacing, body].concat()
}

#[test]
fn wav_states_its_length() {
    let mut file = wav::header(16_000, 1, Some(64_000)).to_vec();
    file.resize(44 + 64_000, 0);
    assert_eq!(whole(&file), Some((2.0, true)));
    assert_eq!(estimate(&file[..50], None).map(|estimate| estimate.seconds), Some(2.0));
    // Cut short: what is there counts.
    assert_eq!(of_len(&file[..50], 44 + 32_000), Some((1.0, true)));
    let mut stream = wav::header(16_000, 1, None).to_vec();
    stream.resize(44 + 16_000, 0);
    assert_eq!(whole(&stream), Some((0.5, true)));
    assert_eq!(estimate(&stream, None), None);
}

#[test]
fn aiff_and_flac_state_their_length() {
    let common = b"COMM\0\0\0\x12\0\x01\0\0\xac\x44\0\x10\x40\x0e\xac\x44\0\0\0\0\0\0";
    let aiff = [&b"FORM\0\0\0\0AIFFANNO\0\0\0\x03abc\0"[..], common].concat();
    assert_eq!(of_len(&aiff, 88_300), Some((1.0, true)));
    let packed = (24_000_u64 << 44) | (15 << 36) | 36_000;
    let flac = [&b"fLaC\0\0\0\x22\x10\0\x10\0\0\0\0\0\0\0"[..], &packed.to_be_bytes(), &[0; 16]].concat();
    assert_eq!(of_len(&flac, 40_000), Some((1.5, true)));
    let tagged = [&b"ID3\x04\0\0\0\0\0\x04abcd"[..], &flac].concat();
    assert_eq!(of_len(&tagged, 40_000), Some((1.5, true)));
    let streamed = [&flac[..18], &(24_000_u64 << 44 | 15 << 36).to_be_bytes(), &[0; 16]].concat();
    assert_eq!(of_len(&streamed, 32_000), Some((2.0, false)));
}

#[test]
fn constant_mp3_follows_from_its_bit_rate() {
    let file = mp3(100);
    assert_eq!(whole(&file), Some((2.4, true)));
    assert_eq!(of_len(&file[..1000], file.len() as u64), Some((2.4, false)));
    let tagged = [&b"ID3\x04\0\0\0\0\x01\0"[..], &[0xFF; 128], &file].concat();
    assert_eq!(of_len(&tagged[..1000], tagged.len() as u64), Some((2.4, false)));
}

#[test]
fn mp3_behind_a_picture_larger_than_the_prefix_is_guessed_without_it() {
    // A tag of 2^17 bytes.
    let tag = [&b"ID3\x04\0\0\0\x08\0\0"[..], &[0; 1000]].concat();
    assert_eq!(of_len(&tag, 10 + (1 << 17) + 32_000), Some((2.0, false)));
}

#[test]
fn variable_mp3_counts_its_frames() {
    let mut file = mp3(3);
    file[13..25].copy_from_slice(b"Xing\0\0\0\x01\0\0\x03\xe8");
    assert_eq!(of_len(&file, 50_000), Some((24.0, true)));
    let mut file = mp3(3);
    file[36..40].copy_from_slice(b"VBRI");
    file[50..54].copy_from_slice(&500_u32.to_be_bytes());
    assert_eq!(of_len(&file, 50_000), Some((12.0, true)));
}

#[test]
fn adts_and_amr_follow_from_their_frames() {
    let mut frame = [0; 100];
    frame[..7].copy_from_slice(&[0xFF, 0xF1, 0x58, 0x40, 0x0C, 0x9F, 0xFC]);
    let file = frame.repeat(75);
    assert_eq!(whole(&file), Some((3.2, true)));
    assert_eq!(of_len(&file[..950], file.len() as u64), Some((3.2, false)));
    assert_eq!(of_len(b"#!AMR\n\x3c", 6 + 32 * 50), Some((1.0, false)));
    assert_eq!(of_len(b"#!AMR-WB\n\x44", 9 + 61 * 50), Some((1.0, false)));
}

#[test]
fn ogg_counts_granules() {
    let head = page(0, b"OpusHead\x01\x01\x38\x01\x80\xbb\0\0\0\0\0");
    let file = [head, page(0, b"OpusTags"), page(48_312, &[1; 700]), page(96_312, &[1; 700])].concat();
    assert_eq!(whole(&file), Some((2.0, true)));
    let (seconds, exact) = of_len(&file[..file.len() - 10], file.len() as u64).unwrap();
    assert!(!exact && (1.5..2.5).contains(&seconds), "{seconds}");
    let vorbis = [page(0, b"\x01vorbis\0\0\0\0\x01\x40\x1f\0\0"), page(12_000, &[0; 300])].concat();
    assert_eq!(whole(&vorbis), Some((1.5, true)));
}

#[test]
fn mp4_states_its_length_if_its_head_is_in_front() {
    assert_eq!(of_len(&mp4(&mvhd(1000, 2500)), 20_000), Some((2.5, true)));
    let wide = [&[1, 0, 0, 0][..], &[0; 16], &48_000_u32.to_be_bytes(), &96_000_u64.to_be_bytes()].concat();
    assert_eq!(of_len(&mp4(&boxed(b"mvhd", &wide)), 20_000), Some((2.0, true)));
    let fragments = boxed(b"mvex", &boxed(b"mehd", &[0, 0, 0, 0, 0, 0, 0x10, 0]));
    assert_eq!(of_len(&mp4(&[mvhd(1024, 0), fragments].concat()), 20_000), Some((4.0, true)));
    assert_eq!(of_len(&mp4(&mvhd(1024, 0)), 16_000), Some((2.0, false)));
    let tail = [boxed(b"ftyp", b"M4A \0\0\0\0"), boxed(b"mdat", &[0; 16_000 - 24])].concat();
    assert_eq!(whole(&tail), Some((2.0, false)));
}

#[test]
fn webm_states_its_length_or_shows_its_pace() {
    let scale = element(&[0x2A, 0xD7, 0xB1], &[0x0F, 0x42, 0x40]);
    let stated = element(&[0x44, 0x89], &2500_f32.to_be_bytes());
    let info = element(&[0x15, 0x49, 0xA9, 0x66], &[&scale[..], &stated].concat());
    assert_eq!(of_len(&webm(&[&info]), 100_000), Some((2.5, true)));
    let live = element(&[0x15, 0x49, 0xA9, 0x66], &scale);
    let cluster = b"\x1F\x43\xB6\x75\x01\xff\xff\xff\xff\xff\xff\xff\xE7\x81\x00";
    let blocks: Vec<u8> = (0..10_u8)
        .flat_map(|n| element(&[0xA3], &[&[0x81, 0, n * 20, 0x80][..], &[0; 94]].concat()))
        .collect();
    let file = webm(&[&live, cluster, &blocks]);
    // 100 bytes for 20 ms.
    let (seconds, exact) = of_len(&file, 50_000).unwrap();
    assert!(!exact && (9.0..11.0).contains(&seconds), "{seconds}");
    assert_eq!(of_len(&webm(&[&live]), 8_000), Some((2.0, false)));
}

#[test]
fn unknown_bytes_are_taken_at_a_common_rate() {
    assert_eq!(whole(&[7; 16_000]), Some((1.0, false)));
    assert_eq!(estimate(&[7; 100], None), None);
    assert_eq!(whole(&[]), Some((0.0, false)));
}

/// What a file says that states 1000 hours, of 10 kB or of unknown length: an estimate from the bytes, or an inexact one.
fn lie(file: &[u8]) {
    let known = estimate(file, Some(10_000)).unwrap();
    assert!(!known.exact && known.seconds <= 10.0, "{known:?}");
    if let Some(unknown) = estimate(file, None) {
        assert!(!unknown.exact, "{unknown:?}");
    }
}

#[test]
fn statements_beyond_what_the_bytes_hold_are_not_believed() {
    const HOURS: u32 = 1000;
    let seconds = HOURS * 3600;
    // Xing and VBRI: frames of 24 ms.
    let frames = seconds / 24 * 1000;
    let mut xing = mp3(3);
    xing[13..25].copy_from_slice(&[&b"Xing\0\0\0\x01"[..], &frames.to_be_bytes()].concat());
    lie(&xing);
    let mut vbri = mp3(3);
    vbri[36..40].copy_from_slice(b"VBRI");
    vbri[50..54].copy_from_slice(&frames.to_be_bytes());
    lie(&vbri);
    let packed = (8000_u64 << 44) | (15 << 36) | (u64::from(seconds) * 8000);
    lie(&[&b"fLaC\0\0\0\x22\x10\0\x10\0\0\0\0\0\0\0"[..], &packed.to_be_bytes(), &[0; 16]].concat());
    lie(&mp4(&mvhd(1, seconds)));
    let fragments = boxed(b"mvex", &boxed(b"mehd", &[&[0; 4][..], &seconds.to_be_bytes()].concat()));
    lie(&mp4(&[mvhd(1, 0), fragments].concat()));
    let mut common = *b"FORM\0\0\0\0AIFFCOMM\0\0\0\x12\0\x01....\0\x10\x40\x0e\xac\x44\0\0\0\0\0\0";
    common[22..26].copy_from_slice(&(seconds * 1000).to_be_bytes());
    lie(&common);
    let stated = element(&[0x44, 0x89], &(seconds as f32 * 1000.0).to_be_bytes());
    lie(&webm(&[&element(&[0x15, 0x49, 0xA9, 0x66], &stated)]));
    let head = page(0, b"OpusHead\x01\x01\x38\x01\x80\xbb\0\0\0\0\0");
    lie(&[head, page(u64::from(seconds) * 48_000, &[1; 700])].concat());
    let mut slow = wav::header(16_000, 1, Some(5000));
    slow[24..28].copy_from_slice(&1_u32.to_le_bytes());
    lie(&slow);
    let mut fact =
        b"RIFF\0\0\0\0WAVEfmt \x12\0\0\0\x11\0\x01\0\x40\x1f\0\0\xd7\x0f\0\0\0\x01\x04\0\0\0".to_vec();
    fact.extend(b"fact\x04\0\0\0\x80\x3e\0\0data\x80\x1f\0\0");
    assert_eq!(of_len(&fact, 8200), Some((2.0, true)));
    let at = fact.len() - 12;
    fact[at..at + 4].copy_from_slice(&4_000_000_000_u32.to_le_bytes());
    lie(&fact);
    lie(b"caff\0\x01\0\0desc\0\0\0\0\0\0\0\x20\x40\xe5\x88\x80\0\0\0\0lpcm\0\0\0\0\0\0\0\x02\x7f\0\0\x01\0\0\0\x01\0\0\0\x10");
}

#[test]
fn statements_of_a_file_of_unknown_length_are_exact_only_if_seen() {
    let mut file = wav::header(16_000, 1, Some(64_000)).to_vec();
    assert_eq!(estimate(&file, None), Some(Estimate { seconds: 2.0, exact: false }));
    file.resize(44 + 64_000, 0);
    assert_eq!(estimate(&file, None), Some(Estimate { seconds: 2.0, exact: true }));
    let mut tagged = mp3(3);
    tagged[13..25].copy_from_slice(b"Xing\0\0\0\x01\0\0\x03\xe8");
    assert_eq!(estimate(&tagged, None).map(|estimate| estimate.exact), Some(false));
    tagged.resize(24_000, 0);
    assert_eq!(estimate(&tagged, None), Some(Estimate { seconds: 24.0, exact: true }));
}

fn sample() -> impl Strategy<Value = Vec<u8>> {
    prop::sample::select(vec![
        wav::header(8000, 1, Some(100)).to_vec(),
        mp3(4),
        [&b"ID3\x04\0\0\0\0\0\x04abcd"[..], &mp3(2)].concat(),
        mp4(&[mvhd(1000, 0), boxed(b"mvex", &boxed(b"mehd", &[0; 8]))].concat()),
        webm(&[
            &element(&[0x15, 0x49, 0xA9, 0x66], &[0x44, 0x89, 0x84, 1, 2, 3, 4]),
            b"\x1F\x43\xB6\x75\x88\xE7\x81\x07\xA3\x83\x81\0\x01",
        ]),
        [page(0, b"OpusHead\x01\x01\x38\x01"), page(960, &[1; 300])].concat(),
        b"FORM\0\0\0\0AIFFCOMM\0\0\0\x12\0\x01\0\0\xac\x44\0\x10\x40\x0e\xac\x44\0\0\0\0\0\0".to_vec(),
        b"fLaC\0\0\0\x22\x10\0\x10\0\0\0\0\0\0\0\x0a\xc4\x40\xf0\0\0\0\x10".to_vec(),
        b"caff\0\x01\0\0desc\0\0\0\0\0\0\0\x20\x40\xe5\x88\x80\0\0\0\0lpcm\0\0\0\0\0\0\0\x02\0\0\0\x01"
            .to_vec(),
        b"#!AMR\n\x3c".to_vec(),
    ])
}

proptest! {
    #[test]
    fn damage_never_panics_and_gives_sane_lengths(
        mut file in sample(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..12),
        cut in any::<prop::sample::Index>(),
        total_len in prop::option::of(any::<u64>()),
    ) {
        for (at, byte) in changes {
            let at = at.index(file.len());
            file[at] = byte;
        }
        file.truncate(cut.index(file.len() + 1));
        if let Some(estimate) = estimate(&file, total_len) {
            prop_assert!(estimate.seconds.is_finite() && estimate.seconds >= 0.0);
        }
    }
}
