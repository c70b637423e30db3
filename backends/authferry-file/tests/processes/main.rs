//! Several processes at one place, some of which are killed, and disks that are full.

mod crash;
mod full;
mod race;
mod rig;
