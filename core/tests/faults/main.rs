//! Processes that die, and disks that fail, at every step of the engine: the whole step is there afterwards, or nothing.

mod disk;
mod kills;
mod replays;
mod swaps;
mod world;
