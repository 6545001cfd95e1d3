//! One value of a table in text format.

/// A value, or NULL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cell(Option<String>);

impl Cell {
    pub(super) const NULL: Self = Self(None);

    /// PgBouncer's way to print a flag in an integer column.
    pub(super) fn flag(set: bool) -> Self {
        Self::from(u32::from(set))
    }

    /// PgBouncer's way to print a flag in a text column.
    pub(super) fn yes_no(yes: bool) -> Self {
        Self::from(if yes { "yes" } else { "no" })
    }

    pub(super) fn as_bytes(&self) -> Option<&[u8]> {
        self.0.as_deref().map(str::as_bytes)
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self(Some(text.to_owned()))
    }
}

impl From<&String> for Cell {
    fn from(text: &String) -> Self {
        Self(Some(text.clone()))
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self(Some(text))
    }
}

impl From<u16> for Cell {
    fn from(number: u16) -> Self {
        Self(Some(number.to_string()))
    }
}

impl From<u32> for Cell {
    fn from(number: u32) -> Self {
        Self(Some(number.to_string()))
    }
}

impl From<u64> for Cell {
    fn from(number: u64) -> Self {
        Self(Some(number.to_string()))
    }
}

impl From<usize> for Cell {
    fn from(number: usize) -> Self {
        Self(Some(number.to_string()))
    }
}

impl<T: Into<Cell>> From<Option<T>> for Cell {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::NULL, Into::into)
    }
}
