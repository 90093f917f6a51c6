//! Random numbers for tests: SplitMix64 (Steele, Lea, Flood 2014), whose seed is printed and can be given.
#![allow(dead_code)] // each test program uses its own part

/// A generator of random numbers.
pub struct Random(u64);

impl Random {
    /// A generator for the test `name`. `GRADUS_TEST_SEED` sets the seed; a failing test shows the one it had.
    pub fn for_test(name: &str) -> Random {
        let seed = std::env::var("GRADUS_TEST_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(0x6772_6164_7573);
        println!("{name}: GRADUS_TEST_SEED={seed}");
        Random(seed)
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        (self.bits() % end as u64) as usize
    }

    /// One of `items`.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }

    /// `count` random bytes.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.bits() as u8).collect()
    }
}
