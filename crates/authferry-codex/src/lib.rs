//! All that is known of the auth file.
