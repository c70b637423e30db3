// The step: `run`, `refresh`, `check`, or a login for the following steps.

import { resolve } from 'node:path'

import { Refused, common, complain, environment, find, home, input, start, tell, truth } from './launcher.mjs'

const SEED = 'AUTHFERRY_SEED'

async function main () {
  const given = ['run', 'refresh', 'check'].filter(input)
  if (given.length > 1) throw new Refused(`\`${given.join('` and `')}\` exclude each other: use two steps`)
  const restoring = options()
  const { program, sha256 } = await find()
  if (input('refresh')) {
    return await start(program, [...common(), 'refresh', '--within', input('refresh')])
  }
  if (input('check')) {
    return await start(program, [...common(), 'status', '--check', '--within', input('check')])
  }
  const codexHome = home()
  // Before anything starts that `post` has to finish.
  tell('GITHUB_STATE', 'program', program)
  tell('GITHUB_STATE', 'sha256', sha256)
  tell('GITHUB_STATE', 'home', codexHome)
  const env = environment()
  if (input('seed')) {
    env[SEED] = process.env.INPUT_SEED
    restoring.push('--seed-from-env', SEED)
  }
  if (input('run')) {
    const bash = ['bash', '--noprofile', '--norc', '-eo', 'pipefail', '-c', input('run')]
    const cwd = resolve(input('working-directory') || '.')
    return await start(program, [...common(codexHome), 'run', ...restoring, '--', ...bash], { env, cwd })
  }
  // It starts a watch in the background.
  const restored = await start(program, [...common(codexHome), 'restore', ...restoring], { env })
  if (restored === 0) tell('GITHUB_ENV', 'CODEX_HOME', codexHome)
  return restored
}

function options () {
  const words = []
  if (!truth('rotate-first')) words.push('--no-rotate-first')
  else if (input('rotate-within')) words.push('--rotate-within', input('rotate-within'))
  if (truth('access-only')) words.push('--access-only')
  if (truth('allow-untrusted')) words.push('--allow-untrusted')
  return words
}

try {
  process.exitCode = await main()
} catch (error) {
  complain(error.message)
  process.exitCode = error instanceof Refused ? 124 : 1
}
