//! Control plane against real sockets.
