/** EBS direct: blocks of snapshots over HTTP. Metadata are EC2's; bytes go through a host (block-broker.ts). */
import * as sdk from '@aws-sdk/client-ebs';
import { catalogueOf } from '../aws/catalogue.ts';
import type { Operation, Service } from '../aws/service.ts';
import type { RootKey } from '../crypto/root-key.ts';
import { BlockBroker } from './block-broker.ts';
import { blockOperations } from './blocks.ts';
import { housekeeping } from './client-tokens.ts';
import { blockHostOperations } from './host-operations.ts';
import { listOperations } from './lists.ts';
import { ebsMigrations } from './records.ts';
import { accessDenied } from './snapshots.ts';
import { Tokens } from './tokens.ts';
import { uploadOperations } from './uploads.ts';

/** The service, and what it adds to the operations that hosts call. */
export function createEbs({ rootKey }: { rootKey: RootKey }): {
  service: Service;
  hostOperations: Readonly<Record<string, Operation>>;
} {
  const broker = new BlockBroker();
  const tokens = new Tokens(rootKey);
  const catalogue = catalogueOf(sdk);
  const operations: Operation[] = [
    ...listOperations(broker, tokens),
    ...blockOperations(broker, tokens, rootKey),
    ...uploadOperations(broker, rootKey),
  ];
  return {
    service: {
      name: 'ebs',
      eventSource: 'ebs.amazonaws.com',
      protocol: 'restJson1',
      operations: Object.fromEntries(
        operations.map((operation) => [operation.name, { ...operation, schema: catalogue[operation.name] }]),
      ),
      catalogue,
      migrations: ebsMigrations,
      accessDenied,
      housekeeping,
    },
    hostOperations: blockHostOperations(broker),
  };
}
