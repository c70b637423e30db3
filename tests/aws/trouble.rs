//! What can go wrong on the way, before each call is answered and after it.
use crate::fixture::Run;
pub(crate) const TRIALS: &[(&str, Run)] = &[];
