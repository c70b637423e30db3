//! What the store relies on in AWS, as the corrected server does it.
