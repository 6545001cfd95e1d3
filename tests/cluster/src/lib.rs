//! weir-cluster
