# What a person may do who seeds `vault://secret/ci/codex`, or reseeds it.

# See what is there, put the first login, and replace a dead one.
path "secret/data/ci/codex" {
  capabilities = ["create", "read", "update"]
}

# End the token with the command, if authferry logged in by itself.
path "auth/token/revoke-self" {
  capabilities = ["update"]
}
