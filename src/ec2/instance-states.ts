/** StartInstances, StopInstances, RebootInstances and TerminateInstances. */
import {
  type InstanceStateChange,
  RebootInstances$,
  type RebootInstancesRequest,
  StartInstances$,
  type StartInstancesRequest,
  type StartInstancesResult,
  StopInstances$,
  type StopInstancesRequest,
  TerminateInstances$,
  type TerminateInstancesRequest,
} from '@aws-sdk/client-ec2';
import type { Call } from '../aws/call.ts';
import { AwsError } from '../aws/errors.ts';
import { operation } from '../aws/service.ts';
import { allowOnInstance } from './access.ts';
import { attachmentsOf, beginShutdown, beginStart } from './attachment-flow.ts';
import { checkInstanceId, missingParameter, stopIfDryRun } from './errors.ts';
import { instanceTopic } from './host-store.ts';
import { findInstances, instanceState } from './instance-store.ts';
import { type InstanceRow, tables } from './records.ts';
import { noTags, type Tags, tagsOfAll } from './tag-store.ts';
import { compact, instanceResources, items } from './trail.ts';
import { throwFailure, waitDeadline, waitFor } from './waiting.ts';

const instancesPerRequestMax = 1000;

interface Named {
  readonly instances: readonly InstanceRow[];
  readonly tags: ReadonlyMap<string, Tags>;
}

async function findNamed(call: Call, input: { readonly InstanceIds?: string[] | undefined }): Promise<Named> {
  const ids = (input.InstanceIds ?? []).map((id) => checkInstanceId(id));
  if (ids.length === 0) throw missingParameter('InstanceId');
  if (ids.length > instancesPerRequestMax)
    throw new AwsError(
      'RequestLimitExceeded',
      `One request can name ${instancesPerRequestMax} instances, not ${ids.length}.`,
    );
  const instances = await findInstances(call, ids);
  return { instances, tags: await tagsOfAll(call, ids) };
}

function accessTo(action: string) {
  return (call: Call, _input: object, { instances, tags }: Named) =>
    instances.map((instance) => allowOnInstance(call, action, instance, tags.get(instance.instance_id) ?? noTags));
}

/**
 * Opens the volumes of stopped instances again, each through the same checks as at the attach. When one can't be opened
 * the instance stays stopped and the error says why. Source: EC2 API reference, StartInstances.
 */
export const startInstances = operation<StartInstancesRequest, StartInstancesResult, Named>({
  name: 'StartInstances',
  schema: StartInstances$,
  effect: 'waits',
  resolve: findNamed,
  access: accessTo('StartInstances'),
  async handle(call, input) {
    stopIfDryRun(input);
    const begun = await call.transaction(async (inside) => {
      const { instances } = await findNamed(inside, input);
      for (const instance of instances) {
        if (instance.state === 'running' || instance.state === 'pending') continue;
        if (instance.state !== 'stopped') throw notInState(instance, 'started');
      }
      for (const instance of instances) if (instance.state === 'stopped') await beginStart(inside, instance);
      const generations = new Map<string, number[]>();
      for (const instance of instances)
        generations.set(
          instance.instance_id,
          (await attachmentsOf(inside, instance)).map((attachment) => attachment.generation),
        );
      return { instances, generations };
    });
    const changes: InstanceStateChange[] = [];
    const deadline = waitDeadline();
    for (const instance of begun.instances) {
      const id = instance.instance_id;
      await settled(call, id, ['running', 'stopped', 'terminated'], begun.generations.get(id)!, deadline);
      changes.push(await stateChange(call, instance));
    }
    return { StartingInstances: changes };
  },
  record: changeRecord((output: StartInstancesResult | undefined) => output?.StartingInstances),
});

/** Closes the volumes and then stops; the attachments stay. Source: EC2 API reference, StopInstances. */
export const stopInstances = operation<StopInstancesRequest, { StoppingInstances?: InstanceStateChange[] }, Named>({
  name: 'StopInstances',
  schema: StopInstances$,
  effect: 'waits',
  resolve: findNamed,
  access: accessTo('StopInstances'),
  async handle(call, input) {
    stopIfDryRun(input);
    const instances = await call.transaction(async (inside) => {
      const found = (await findNamed(inside, input)).instances;
      for (const instance of found)
        if (instance.state === 'terminated' || instance.state === 'shutting-down')
          throw notInState(instance, 'stopped');
      for (const instance of found) {
        if (instance.state === 'running' || instance.state === 'pending')
          await beginShutdown(inside, instance, 'stopping', {
            code: 'Client.UserInitiatedShutdown',
            message: 'User initiated shutdown',
          });
      }
      return found;
    });
    const changes: InstanceStateChange[] = [];
    const deadline = waitDeadline();
    for (const instance of instances) {
      await settled(call, instance.instance_id, ['stopped', 'terminated'], [], deadline);
      changes.push(await stateChange(call, instance));
    }
    return { StoppingInstances: changes };
  },
  record: changeRecord(
    (output: { StoppingInstances?: InstanceStateChange[] } | undefined) => output?.StoppingInstances,
  ),
});

/** Detaches the volumes; those with DeleteOnTermination are deleted. Source: EC2 API reference, TerminateInstances. */
export const terminateInstances = operation<
  TerminateInstancesRequest,
  { TerminatingInstances?: InstanceStateChange[] },
  Named
>({
  name: 'TerminateInstances',
  schema: TerminateInstances$,
  effect: 'waits',
  resolve: findNamed,
  access: accessTo('TerminateInstances'),
  async handle(call, input) {
    stopIfDryRun(input);
    const instances = await call.transaction(async (inside) => {
      const found = (await findNamed(inside, input)).instances;
      for (const instance of found) {
        if (instance.disable_api_termination)
          throw new AwsError(
            'OperationNotPermitted',
            `The instance '${instance.instance_id}' may not be terminated. Modify its 'disableApiTermination' instance attribute and try again.`,
          );
      }
      for (const instance of found) {
        if (instance.state !== 'terminated' && instance.state !== 'shutting-down')
          await beginShutdown(inside, instance, 'shutting-down', {
            code: 'Client.UserInitiatedShutdown',
            message: 'User initiated shutdown',
          });
      }
      return found;
    });
    const changes: InstanceStateChange[] = [];
    const deadline = waitDeadline();
    for (const instance of instances) {
      await settled(call, instance.instance_id, ['terminated'], [], deadline);
      changes.push(await stateChange(call, instance));
    }
    return { TerminatingInstances: changes };
  },
  record: changeRecord(
    (output: { TerminatingInstances?: InstanceStateChange[] } | undefined) => output?.TerminatingInstances,
  ),
});

/** There is no operating system to restart: volumes stay open. Source: EC2 API reference, RebootInstances. */
export const rebootInstances = operation<RebootInstancesRequest, object, Named>({
  name: 'RebootInstances',
  schema: RebootInstances$,
  effect: 'writes',
  resolve: findNamed,
  access: accessTo('RebootInstances'),
  handle(_call, input, { instances }) {
    stopIfDryRun(input);
    for (const instance of instances)
      if (instance.state === 'terminated' || instance.state === 'shutting-down') throw notInState(instance, 'rebooted');
    return {};
  },
  record: changeRecord(() => undefined),
});

function notInState(instance: InstanceRow, done: string): AwsError {
  return new AwsError(
    'IncorrectInstanceState',
    `The instance '${instance.instance_id}' is not in a state from which it can be ${done}: it is '${instance.state}'.`,
  );
}

/** Waits until the instance has come to one of `states`; throws why a wish with one of `generations` was undone. */
async function settled(
  call: Call,
  instanceId: string,
  states: ReadonlyArray<InstanceRow['state']>,
  generations: readonly number[],
  deadline: number,
): Promise<void> {
  const look = async (inside: Call) => {
    await throwFailure(inside, generations);
    const row = await tables(inside)
      .selectFrom('ec2_instances')
      .select('state')
      .where('instance_id', '=', instanceId)
      .executeTakeFirst();
    return !row || states.includes(row.state) ? true : undefined;
  };
  await waitFor(call, instanceTopic(instanceId), look, deadline);
}

async function stateChange(call: Call, before: InstanceRow): Promise<InstanceStateChange> {
  const now = await call.transaction((inside) => findInstances(inside, [before.instance_id]));
  return {
    InstanceId: before.instance_id,
    CurrentState: instanceState(now[0]!.state),
    PreviousState: instanceState(before.state),
  };
}

function changeRecord<Output>(changesIn: (output: Output | undefined) => InstanceStateChange[] | undefined) {
  return (
    call: Call,
    input: { InstanceIds?: string[] | undefined; Force?: boolean | undefined },
    output: Output | undefined,
  ) => ({
    requestParameters: compact({
      instancesSet: items(input.InstanceIds, (instanceId) => ({ instanceId })) ?? {},
      force: input.Force,
    }),
    responseElements: output
      ? compact({
          requestId: call.requestId,
          instancesSet: items(changesIn(output), ({ InstanceId, CurrentState, PreviousState }) => ({
            instanceId: InstanceId,
            currentState: { code: CurrentState?.Code, name: CurrentState?.Name },
            previousState: { code: PreviousState?.Code, name: PreviousState?.Name },
          })),
        })
      : null,
    lookupResources: instanceResources(...(input.InstanceIds ?? [])),
  });
}
