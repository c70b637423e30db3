# Rights of a monitor that runs `authferry status --check` for `vault://secret/ci/codex`.

# Read the login: its times are in its tokens.
path "secret/data/ci/codex" {
  capabilities = ["read"]
}

# Read in the lease whether the provider refuses the login.
path "secret/data/ci/codex-lease" {
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
