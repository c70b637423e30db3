# What a person may do who seeds `vault://secret/ci/codex`, or reseeds it.

# See what is there, put the first login, and replace a dead one.
path "secret/data/ci/codex" {
  capabilities = ["create", "read", "update"]
}

# Whether the server keeps what a swap replaces: the setting of the secret, else of the mount.
# Without these two lines a copy goes to the rescue folder instead.
path "secret/metadata/ci/codex" {
  capabilities = ["read"]
}

path "secret/config" {
  capabilities = ["read"]
}

# End the token with the command, if authferry logged in by itself.
path "auth/token/revoke-self" {
  capabilities = ["update"]
}

# Tell a token that has ended from a right that is missing.
path "auth/token/lookup-self" {
  capabilities = ["read"]
}
