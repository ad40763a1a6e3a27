/**
 * The layout, as rules: imports point one way, cli → gateway → services → (aws, crypto, database, files), and the host
 * stands apart. test/layout.test.ts runs them.
 */
const services = '(iam|kms|ec2|ebs|cloudtrail|events|cloudformation)';
const tests = '\\.test\\.ts$|/testing[a-z-]*\\.ts$';

/** @type {import('dependency-cruiser').IConfiguration} */
module.exports = {
  forbidden: [
    {
      name: 'no-cycles',
      comment: 'Two files that need each other are one file, or lack a third.',
      severity: 'error',
      from: {},
      to: { circular: true },
    },
    {
      name: 'services-apart',
      comment: 'A service asks another through call.invoke, so that the call is authorized and recorded.',
      severity: 'error',
      from: { path: `^src/${services}/` },
      to: { path: `^src/${services}/`, pathNot: '^src/$1/' },
    },
    {
      name: 'services-below-gateway',
      comment: 'A service knows nothing of HTTP, of commands, of hosts or of blocks.',
      severity: 'error',
      from: { path: `^src/${services}/`, pathNot: tests },
      to: { path: '^src/(gateway|cli|host|blocks|console)/' },
    },
    {
      name: 'vocabulary-at-the-bottom',
      comment: 'What all services share depends on none of them.',
      severity: 'error',
      from: { path: '^src/(aws|crypto|database|files)/', pathNot: tests },
      to: { path: '^src/', pathNot: '^src/(aws|crypto|database|files)/' },
    },
    {
      name: 'crypto-alone',
      comment: 'Cryptography depends on nothing of ours but how files are written, so that it can be read by itself.',
      severity: 'error',
      from: { path: '^src/crypto/', pathNot: tests },
      to: { path: '^src/', pathNot: '^src/(crypto|files)/' },
    },
    {
      name: 'host-apart',
      comment: 'The host reaches the control plane only over the API: no service, no database.',
      severity: 'error',
      from: { path: '^src/host/', pathNot: tests },
      to: { path: '^src/', pathNot: '^src/(host|blocks|crypto|aws|files)/' },
    },
    {
      name: 'blocks-apart',
      comment: 'Where bytes rest is nobody else’s business.',
      severity: 'error',
      from: { path: '^src/blocks/', pathNot: tests },
      to: { path: '^src/', pathNot: '^src/(blocks|crypto|aws|files)/' },
    },
    {
      name: 'gateway-below-cli',
      comment: 'The control plane never touches volume data, and is no command.',
      severity: 'error',
      from: { path: '^src/gateway/', pathNot: tests },
      to: { path: '^src/(cli|host|blocks|console)/' },
    },
    {
      name: 'no-tests-in-the-product',
      comment: 'What only tests need stays in tests.',
      severity: 'error',
      from: { path: '^src/', pathNot: tests },
      to: { path: `${tests}|^test/|^bench/` },
    },
    {
      name: 'no-development-packages-in-the-product',
      comment: 'A package that the product needs is a dependency.',
      severity: 'error',
      from: { path: '^src/(?!console/)', pathNot: tests },
      to: { dependencyTypes: ['npm-dev'], pathNot: 'node_modules/@types/' },
    },
    {
      name: 'everything-resolves',
      comment: 'Every import leads to a file or an installed package.',
      severity: 'error',
      from: { path: '^src/' },
      to: { couldNotResolve: true },
    },
  ],
  options: {
    doNotFollow: { path: 'node_modules' },
    exclude: { path: '^src/console/' },
  },
};
