# Rights of a job: the login of `vault://secret/ci/codex`, and nothing else.

# Read the login, and swap in the next one. A job cannot create the first one.
path "secret/data/ci/codex" {
  capabilities = ["read", "update"]
}

# The lease, which the first job that needs it creates.
path "secret/data/ci/codex-lease" {
  capabilities = ["create", "read", "update"]
}

# Read whether the server keeps a replaced version: the setting of the secret, else of the mount.
# Without these two paths the job keeps a copy in the rescue folder instead.
path "secret/metadata/ci/codex" {
  capabilities = ["read"]
}

path "secret/config" {
  capabilities = ["read"]
}

# Renew the job's token while the job runs.
path "auth/token/renew-self" {
  capabilities = ["update"]
}

# Revoke it at the end of the job.
path "auth/token/revoke-self" {
  capabilities = ["update"]
}

# Distinguish an expired token from a missing right.
path "auth/token/lookup-self" {
  capabilities = ["read"]
}
