// The end of the job, whatever became of it: persists what is left to be persisted, and
// cleans up. It may run after an agent that was told to do harm.

import { common, complain, digest, start } from './launcher.mjs'

const { STATE_program: program, STATE_sha256: sha256, STATE_home: home } = process.env

// Without a program `main` had nothing to begin with.
if (program) {
  if (found() === sha256) {
    process.exitCode = await start(program, [...common(home), 'persist', '--if-restored'])
  } else {
    complain(`${program} is not the program any more that began this job, and is not started: something in the job has changed it.\nWhat was rotated is in the store if the watch or \`run\` was still there; if not, the login is lost with this machine, and \`authferry seed --replace\` brings in a new one`)
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
