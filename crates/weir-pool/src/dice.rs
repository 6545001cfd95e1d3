//! Chance as an argument: the caller owns the randomness, so that a history can be replayed from its seed.

/// A source of numbers that nobody is meant to predict, or that a test chooses.
pub trait Dice {
    /// A number from zero up to, but not including, `bound`. `bound` is at least 1.
    fn below(&mut self, bound: u64) -> u64;
}

impl<D: Dice + ?Sized> Dice for &mut D {
    fn below(&mut self, bound: u64) -> u64 {
        (**self).below(bound)
    }
}

/// A place in a list of `len` entries (at least one), whatever the dice answer.
pub(crate) fn index_below(dice: &mut (impl Dice + ?Sized), len: usize) -> usize {
    debug_assert!(len > 0, "nothing to choose from");
    let drawn = usize::try_from(dice.below(len as u64)).unwrap_or(usize::MAX);
    drawn.min(len.saturating_sub(1))
}
