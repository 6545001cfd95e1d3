//! weir-discovery
