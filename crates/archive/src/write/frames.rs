//! zstd: a frame for every so many bytes, each compressed in one piece. A stream looks for matches
//! in a ring, which took half as long again; the frames are no larger, for the windows of the low
//! levels are not larger than a frame (`docs/benchmarks.md`).
//!
//! Memory: twice [`FRAME`], and from half a MiB at level 1 to 1.3 MiB at level 3 for the compressor,
//! which keeps what it took: other levels are tried by one that lasts no longer than the trial.

use std::io;

use zstd::{bulk::Compressor, zstd_safe::CParameter, zstd_safe::compress_bound};

use crate::write::WriteFormat;

/// Most bytes of a frame before compression.
const FRAME: usize = 512 * 1024;
/// Bytes at the begin of a stream that tell which level is worth its time.
const SAMPLE: usize = 128 * 1024;
/// Levels that are tried on the sample, each with the percentage of the size at [`FASTEST`] that it
/// may leave. They take about 1.5 and 2.5 times as long.
const WORTH: [(i32, usize); 2] = [(3, 80), (2, 90)];
/// What is used where nothing else is worth it.
const FASTEST: i32 = 1;

/// Makes frames of what is pushed in.
pub(crate) struct Frames {
    compressor: Compressor<'static>,
    /// Whether the level is chosen by what the streams begin with.
    sampled: bool,
    /// Whether it was, so that it stays for the streams that follow.
    chosen: bool,
    /// What makes no full frame yet.
    raw: Vec<u8>,
    made: Vec<u8>,
    /// Whether the stream has a frame already.
    any: bool,
}

impl Frames {
    /// `level` as in [`WriteFormat`].
    pub(crate) fn new(level: i32) -> io::Result<Self> {
        let sampled = level == WriteFormat::SAMPLED;
        let mut compressor = Compressor::new(if sampled { FASTEST } else { level })?;
        compressor.set_parameter(CParameter::ChecksumFlag(true))?;
        Ok(Self {
            compressor,
            sampled,
            chosen: false,
            raw: Vec::new(),
            made: Vec::new(),
            any: false,
        })
    }

    /// Takes bytes; frames that are full go to `emit`.
    pub(crate) fn push(&mut self, mut input: &[u8], emit: &mut dyn FnMut(&[u8])) -> io::Result<()> {
        while self.raw.len() + input.len() >= FRAME {
            let (now, rest) = input.split_at(FRAME - self.raw.len());
            self.raw.extend_from_slice(now);
            input = rest;
            if self.sampled && !self.any && !self.chosen {
                self.choose_level()?;
            }
            self.frame(emit)?;
        }
        self.raw.extend_from_slice(input);
        Ok(())
    }

    /// Ends the stream, which has a frame also when it has no bytes. Another may follow.
    pub(crate) fn end(&mut self, emit: &mut dyn FnMut(&[u8])) -> io::Result<()> {
        if !self.any || !self.raw.is_empty() {
            self.frame(emit)?;
        }
        self.any = false;
        Ok(())
    }

    /// What follows is something else: its level is chosen anew.
    pub(crate) fn forget_level(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.chosen) {
            self.compressor.set_compression_level(FASTEST)?;
        }
        Ok(())
    }

    fn frame(&mut self, emit: &mut dyn FnMut(&[u8])) -> io::Result<()> {
        self.made.clear();
        self.made.reserve(compress_bound(self.raw.len()));
        let length = self
            .compressor
            .compress_to_buffer(&self.raw[..], &mut self.made)?;
        emit(&self.made[..length]);
        self.raw.clear();
        self.any = true;
        Ok(())
    }

    /// Sets the level by the stream that begins with what is held.
    fn choose_level(&mut self) -> io::Result<()> {
        let sample = &self.raw[..SAMPLE];
        let mut trial = Compressor::new(FASTEST)?;
        let mut size = |level: i32| {
            trial.set_compression_level(level)?;
            self.made.clear();
            self.made.reserve(compress_bound(sample.len()));
            trial.compress_to_buffer(sample, &mut self.made)
        };
        let fastest = size(FASTEST)?;
        let mut chosen = FASTEST;
        for (level, percent) in WORTH {
            if size(level)? * 100 < fastest * percent {
                chosen = level;
                break;
            }
        }
        self.chosen = true;
        self.compressor.set_compression_level(chosen)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use proptest::prelude::*;

    use super::{FRAME, Frames};
    use crate::write::WriteFormat;

    fn compress(frames: &mut Frames, data: &[u8], piece: usize) -> Vec<Vec<u8>> {
        let mut made = Vec::new();
        for piece in data.chunks(piece) {
            frames
                .push(piece, &mut |frame| made.push(frame.to_vec()))
                .unwrap();
        }
        frames.end(&mut |frame| made.push(frame.to_vec())).unwrap();
        made
    }

    fn decompress(frames: &[Vec<u8>]) -> Vec<u8> {
        let joined = frames.concat();
        let mut data = Vec::new();
        zstd::Decoder::new(&joined[..])
            .unwrap()
            .read_to_end(&mut data)
            .unwrap();
        data
    }

    /// Short words in no order: matches too short for the lowest level.
    fn text(length: usize) -> Vec<u8> {
        let mut seed = 1_u64;
        let mut random = move || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            usize::try_from(seed >> 40).unwrap()
        };
        let words: Vec<[u8; 6]> = (0..200)
            .map(|_| std::array::from_fn(|_| b'a' + u8::try_from(random() % 26).unwrap()))
            .collect();
        let mut text = Vec::new();
        while text.len() < length {
            text.extend_from_slice(&words[random() % words.len()]);
        }
        text
    }

    #[test]
    fn every_stream_has_a_frame_and_no_stream_a_frame_too_many() {
        for level in [WriteFormat::SAMPLED, 1, 2, 3] {
            let mut frames = Frames::new(level).unwrap();
            for (length, expected) in [
                (0, 1),
                (1, 1),
                (FRAME - 1, 1),
                (FRAME, 1),
                (FRAME + 1, 2),
                (2 * FRAME, 2),
                (0, 1),
            ] {
                let data = text(length)[..length].to_vec();
                let made = compress(&mut frames, &data, 64 * 1024);
                assert_eq!(made.len(), expected, "{length} bytes at level {level}");
                assert!(decompress(&made) == data, "{length} bytes at level {level}");
            }
        }
    }

    #[test]
    fn a_level_is_chosen_by_the_first_stream_and_anew_when_it_is_forgotten() {
        let size = |made: Vec<Vec<u8>>| made.iter().map(Vec::len).sum::<usize>();
        // The same lines all over: nothing to be gained.
        let even = b"0123456789\t2020-01-01\tsome words\n".repeat(2 * FRAME / 32);
        // Level 3 finds what lies far back.
        let uneven = text(2 * FRAME);
        let by =
            |level, data: &[u8]| size(compress(&mut Frames::new(level).unwrap(), data, 100_000));
        assert!(
            by(3, &uneven) * 100 < by(1, &uneven) * 90,
            "the sample shows nothing: {} and {}",
            by(3, &uneven),
            by(1, &uneven)
        );
        let mut frames = Frames::new(WriteFormat::SAMPLED).unwrap();
        for _ in 0..2 {
            assert_eq!(size(compress(&mut frames, &even, 100_000)), by(1, &even));
            assert_eq!(
                size(compress(&mut frames, &uneven, 100_000)),
                by(1, &uneven)
            );
            frames.forget_level().unwrap();
            let chosen = size(compress(&mut frames, &uneven, 100_000));
            assert!(chosen < by(1, &uneven), "{chosen}");
            assert_eq!(size(compress(&mut frames, &uneven, 100_000)), chosen);
            frames.forget_level().unwrap();
        }
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out(
            data in prop::collection::vec(any::<u8>(), 0..2000),
            times in 1_usize..600,
            piece in 1_usize..200_000,
        ) {
            let data = data.repeat(times);
            let mut frames = Frames::new(WriteFormat::SAMPLED).unwrap();
            prop_assert!(decompress(&compress(&mut frames, &data, piece)) == data);
        }
    }
}
