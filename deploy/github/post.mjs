// The end of the job, failed or not: persists the login, and cleans up. It may run after a malicious
// agent.

import { common, complain, digest, start } from './launcher.mjs'

const { STATE_program: program, STATE_sha256: sha256, STATE_home: home } = process.env

// Without a program `main` has started nothing.
if (program) {
  if (found() === sha256) {
    process.exitCode = await start(program, [...common(home), 'persist', '--if-restored'])
  } else {
    complain(`the login is not persisted at the end: ${program} has changed since the job started, and is not run.\nRotated logins are in the store if the watch or \`run\` was still running. If not, the login is lost with this machine: put in a new one with \`authferry seed --replace FILE\``)
    process.exitCode = 1
  }
}

function found () {
  try {
    return digest(program)
  } catch {
    return undefined
  }
}
