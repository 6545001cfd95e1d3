//! User lists: a table of cases, and random text.
