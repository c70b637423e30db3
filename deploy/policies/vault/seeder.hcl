# Rights of a person who seeds or reseeds `vault://secret/ci/codex`.

# Read the login, create the first one, and replace a dead one.
path "secret/data/ci/codex" {
  capabilities = ["create", "read", "update"]
}

# Read in the lease whether the provider refuses the login.
path "secret/data/ci/codex-lease" {
  capabilities = ["read"]
}

# Read whether the server keeps a replaced version: the setting of the secret, else of the mount.
# Without these two paths authferry keeps a copy in the rescue folder instead.
path "secret/metadata/ci/codex" {
  capabilities = ["read"]
}

path "secret/config" {
  capabilities = ["read"]
}

# Revoke the token at the end, if authferry logged in itself.
path "auth/token/revoke-self" {
  capabilities = ["update"]
}

# Distinguish an expired token from a missing right.
path "auth/token/lookup-self" {
  capabilities = ["read"]
}
