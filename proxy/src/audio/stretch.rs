//! Faster or slower speech at the same pitch, by overlap-add of the most similar pieces (WSOLA: W. Verhelst, M. Roelands, "An overlap-add
//! technique based on waveform similarity", ICASSP 1993).

/// Slowest and fastest speed, as OpenAI has them.
pub const SPEEDS: std::ops::RangeInclusive<f64> = 0.25..=4.0;

/// Seconds of a piece; half of it overlaps with the next. Long enough for two periods of a low voice.
const PIECE: f64 = 0.03;
/// How far from its place a similar piece is looked for, seconds: a period of a low voice.
const REACH: f64 = 0.01;
/// The first look skips so many places and samples.
const COARSE: usize = 3;

/// Changes the speed of one stream of samples.
#[derive(Debug)]
pub struct Stretch {
    speed: f64,
    /// Half a piece, which is what each piece adds.
    hop: usize,
    reach: usize,
    /// Samples that may still be needed; the first is sample `from` of the stream.
    input: Vec<f32>,
    from: usize,
    /// Pieces taken so far.
    pieces: usize,
    /// Sample of the stream that would follow the last piece without a cut.
    follows: usize,
    /// The second half of the last piece, fading out.
    tail: Vec<f32>,
    made: usize,
}

impl Stretch {
    /// For that many samples per second, at a speed within [`SPEEDS`].
    pub fn new(sample_rate: u32, speed: f64) -> Self {
        let samples = |seconds: f64| (seconds * f64::from(sample_rate)).round().max(1.0) as usize;
        let (hop, reach) = (samples(PIECE / 2.0), samples(REACH));
        Self {
            speed: speed.clamp(*SPEEDS.start(), *SPEEDS.end()),
            hop,
            reach,
            input: Vec::new(),
            from: 0,
            pieces: 0,
            follows: 0,
            tail: vec![0.0; hop],
            made: 0,
        }
    }

    /// Takes samples; gives those that are finished.
    pub fn push(&mut self, samples: &[i16]) -> Vec<i16> {
        self.input.extend(samples.iter().map(|sample| f32::from(*sample)));
        let end = self.from + self.input.len();
        let mut out = Vec::new();
        while self.place() + self.reach + 2 * self.hop <= end && self.follows + self.hop <= end {
            self.piece(&mut out);
        }
        self.made += out.len();
        out
    }

    /// The rest of the stream: all of it is as long as what came, divided by the speed.
    pub fn finish(mut self) -> Vec<i16> {
        let end = self.from + self.input.len();
        let whole = (end as f64 / self.speed).round() as usize;
        let missing = whole.saturating_sub(self.made);
        let mut out = Vec::new();
        while out.len() < missing {
            let needed = (self.place() + self.reach + 2 * self.hop).max(self.follows + self.hop);
            self.input.resize(self.input.len().max(needed.saturating_sub(self.from)), 0.0);
            self.piece(&mut out);
        }
        out.truncate(missing);
        out
    }

    /// Where the next piece would begin at an even pace.
    fn place(&self) -> usize {
        (self.pieces as f64 * self.hop as f64 * self.speed).round() as usize
    }

    /// Takes the next piece. What it needs must be there.
    fn piece(&mut self, out: &mut Vec<i16>) {
        let start = if self.pieces == 0 { 0 } else { self.most_similar() };
        let piece = &self.input[start - self.from..][..2 * self.hop];
        let (head, next) = piece.split_at(self.hop);
        for (at, sample) in head.iter().enumerate() {
            let rise = if self.pieces == 0 { 1.0 } else { rise(at, self.hop) };
            out.push((self.tail[at] + sample * rise).round() as i16);
        }
        for (at, sample) in next.iter().enumerate() {
            self.tail[at] = sample * (1.0 - rise(at, self.hop));
        }
        self.follows = start + self.hop;
        self.pieces += 1;
        let needed = self.follows.min(self.place().saturating_sub(self.reach));
        let passed = needed.saturating_sub(self.from).min(self.input.len());
        self.input.drain(..passed);
        self.from += passed;
    }

    /// The start near the piece's place from which the sound goes on most like after the last piece.
    fn most_similar(&self) -> usize {
        let model = &self.input[self.follows - self.from..][..self.hop];
        let like = |start: &usize, step: usize| {
            let piece = &self.input[start - self.from..][..self.hop];
            let (mut product, mut energy) = (0.0_f32, 1.0_f32);
            for (a, b) in model.iter().zip(piece).step_by(step) {
                product += a * b;
                energy += b * b;
            }
            product / energy.sqrt()
        };
        let best = |places: std::iter::StepBy<std::ops::RangeInclusive<usize>>, step: usize| {
            places
                .map(|start| (start, like(&start, step)))
                .max_by(|a, b| a.1.total_cmp(&b.1))
                .map(|(start, _)| start)
        };
        let place = self.place();
        let first = place.saturating_sub(self.reach).max(self.from);
        let last = place + self.reach;
        let near = best((first..=last).step_by(COARSE), COARSE).unwrap_or(place);
        let around = near.saturating_sub(COARSE).max(first)..=(near + COARSE).min(last);
        best(around.step_by(1), 1).unwrap_or(near)
    }
}

/// A half of a Hann window: those of two pieces add up to 1.
fn rise(at: usize, len: usize) -> f32 {
    let phase = (at as f32 + 0.5) / len as f32 * std::f32::consts::PI;
    0.5 - 0.5 * phase.cos()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: u32 = 24_000;

    fn tone(hz: f64, seconds: f64) -> Vec<i16> {
        let samples = (seconds * f64::from(RATE)) as usize;
        let radians = |at: usize| at as f64 / f64::from(RATE) * hz * std::f64::consts::TAU;
        (0..samples).map(|at| (radians(at).sin() * 8_000.0) as i16).collect()
    }

    fn stretched(sound: &[i16], speed: f64, chunk: usize) -> Vec<i16> {
        let mut stretch = Stretch::new(RATE, speed);
        let mut made = Vec::new();
        for chunk in sound.chunks(chunk) {
            made.extend(stretch.push(chunk));
        }
        made.extend(stretch.finish());
        made
    }

    /// Pitch by upward crossings of zero.
    fn hz(sound: &[i16]) -> f64 {
        let crossings = sound.windows(2).filter(|pair| pair[0] < 0 && pair[1] >= 0).count();
        crossings as f64 * f64::from(RATE) / sound.len() as f64
    }

    #[test]
    fn duration_changes_and_pitch_does_not() {
        for pitch in [90.0, 220.0, 700.0] {
            let sound = tone(pitch, 2.0);
            for speed in [0.25, 0.5, 0.9, 1.0, 1.5, 2.0, 4.0] {
                let made = stretched(&sound, speed, 1_000);
                assert_eq!(made.len(), (sound.len() as f64 / speed).round() as usize);
                assert!((hz(&made) / pitch - 1.0).abs() < 0.03, "{pitch} Hz at {speed}: {}", hz(&made));
                // The last pieces of a stream run into silence.
                let body = &made[..made.len() * 8 / 10];
                let loudest = body.iter().map(|sample| sample.unsigned_abs()).max().unwrap();
                assert!((7_000..9_000).contains(&loudest), "{pitch} Hz at {speed}: {loudest}");
                let jump = body.windows(2).map(|pair| pair[0].abs_diff(pair[1])).max().unwrap();
                let own = sound.windows(2).map(|pair| pair[0].abs_diff(pair[1])).max().unwrap();
                assert!(jump < own * 3 / 2 + 50, "a click: {jump}, {own} in the sound itself");
            }
        }
    }

    #[test]
    fn the_size_of_chunks_changes_nothing() {
        let sound = tone(150.0, 0.7);
        let whole = stretched(&sound, 1.3, usize::MAX);
        for chunk in [1, 7, 480, 5_000] {
            assert_eq!(stretched(&sound, 1.3, chunk), whole, "in chunks of {chunk}");
        }
    }

    #[test]
    fn very_short_sounds_have_their_length() {
        for samples in [0, 1, 100, 719] {
            assert_eq!(stretched(&vec![100; samples], 0.5, 64).len(), samples * 2);
            assert_eq!(
                stretched(&vec![100; samples], 2.0, 64).len(),
                (samples as f64 / 2.0).round() as usize
            );
        }
    }
}
