//! Discovery driven through its public door only, on a virtual clock: told stories and random histories of a cluster.

mod arbitrary;
mod ending;
mod following;
mod histories;
mod planned;
mod reading;
mod restarts;
mod world;
