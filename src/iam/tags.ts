/** Tags of users, roles, managed policies and instance profiles. Source: IAM API reference, TagUser and its kin. */
import type { Tag } from '@aws-sdk/client-iam';
import type { Call } from '../aws/call.ts';
import { type Operation, operation } from '../aws/service.ts';
import { list, required } from '../aws/validate.ts';
import { check } from './errors.ts';
import {
  accessTo,
  arnText,
  existing,
  identitiesChanged,
  nameOf,
  type PlainTag,
  putTags,
  recordedTags,
  requestTags,
  resolveIdentity,
  tablesOf,
  tagKeyText,
  tagListRule,
  tagsOf,
} from './identities.ts';
import { accessToProfile, existingProfile, profileName, resolveProfile } from './instance-profiles.ts';
import { changeablePolicy, existingPolicy, resolvePolicy } from './managed-policies.ts';
import { type PageInput, pageAfter, pageOf, pageRows, pageRules } from './paging.ts';

interface Input extends PageInput {
  readonly UserName?: string;
  readonly RoleName?: string;
  readonly PolicyArn?: string;
  readonly InstanceProfileName?: string;
  readonly Tags?: Tag[];
  readonly TagKeys?: string[];
}

interface Tagged {
  readonly arn: string;
  readonly tags: readonly PlainTag[];
  /** The id under which the tags are. @throws {AwsError} NoSuchEntity */
  readonly id: (isChanged: boolean) => string;
}

const resources = {
  User: {
    accessTo,
    rules: { UserName: required(nameOf('user')) },
    async find(call: Call, input: Input): Promise<Tagged> {
      const user = await resolveIdentity(call, 'user', input.UserName!);
      return { ...user, id: () => existing(user).id };
    },
  },
  Role: {
    accessTo,
    rules: { RoleName: required(nameOf('role')) },
    async find(call: Call, input: Input): Promise<Tagged> {
      const role = await resolveIdentity(call, 'role', input.RoleName!);
      return { ...role, id: () => existing(role).id };
    },
  },
  Policy: {
    accessTo,
    rules: { PolicyArn: required(arnText) },
    async find(call: Call, input: Input): Promise<Tagged> {
      const policy = await resolvePolicy(call, input.PolicyArn!);
      return { ...policy, id: (isChanged) => (isChanged ? changeablePolicy(policy) : existingPolicy(policy)).id };
    },
  },
  InstanceProfile: {
    accessTo: accessToProfile,
    rules: { InstanceProfileName: required(profileName) },
    async find(call: Call, input: Input): Promise<Tagged> {
      const profile = await resolveProfile(call, input.InstanceProfileName!);
      return { ...profile, id: () => existingProfile(profile).id };
    },
  },
};

export const tagOperations: readonly Operation[] = Object.entries(resources).flatMap(
  ([kind, { accessTo, rules, find }]) => {
    const record = (_call: Call, input: Input) => ({
      requestParameters: {
        userName: input.UserName,
        roleName: input.RoleName,
        policyArn: input.PolicyArn,
        instanceProfileName: input.InstanceProfileName,
        tags: recordedTags(input.Tags),
        tagKeys: input.TagKeys,
      },
    });
    return [
      operation<Input, object, Tagged>({
        name: `Tag${kind}`,
        effect: 'writes',
        resolve(call, input) {
          check(input, { ...rules, Tags: required(tagListRule) });
          return find(call, input);
        },
        access: (call, input, subject) => [accessTo(call, `Tag${kind}`, subject, requestTags(input.Tags))],
        async handle(call, input, subject) {
          await putTags(call, subject.id(true), input.Tags!);
          await identitiesChanged(call);
          return {};
        },
        record,
      }),
      operation<Input, object, Tagged>({
        name: `Untag${kind}`,
        effect: 'writes',
        resolve(call, input) {
          check(input, { ...rules, TagKeys: required(list(tagKeyText, { max: 50 })) });
          return find(call, input);
        },
        access: (call, input, subject) => [accessTo(call, `Untag${kind}`, subject, { 'aws:TagKeys': input.TagKeys! })],
        async handle(call, input, subject) {
          const keys = input.TagKeys!.map((key) => key.toLowerCase());
          const id = subject.id(true);
          if (keys.length > 0)
            await tablesOf(call)
              .deleteFrom('iam_tags')
              .where('resource_id', '=', id)
              .where('key_lower', 'in', keys)
              .execute();
          await identitiesChanged(call);
          return {};
        },
        record,
      }),
      operation<Input, object, Tagged>({
        name: `List${kind}Tags`,
        effect: 'reads',
        resolve(call, input) {
          check(input, { ...rules, ...pageRules });
          return find(call, input);
        },
        access: (call, _input, subject) => [accessTo(call, `List${kind}Tags`, subject)],
        async handle(call, input, subject) {
          const after = pageAfter(input);
          const tags = (await tagsOf(call, subject.id(false))).filter(({ Key }) => Key.toLowerCase() > after);
          const { rows, rest } = pageOf(tags.slice(0, pageRows(input)), input, ({ Key }) => Key.toLowerCase());
          return { Tags: [...rows], ...rest };
        },
        record,
      }),
    ];
  },
);
