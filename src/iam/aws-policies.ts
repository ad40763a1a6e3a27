/**
 * The managed policies that AWS has in every account, as far as this system's actions need them. They live under the
 * account `aws`, and nobody can change them.
 */
import type { Kysely } from 'kysely';

const policies = [
  {
    id: 'ANPAIWMBCKSKIEE64ZLYK',
    name: 'AdministratorAccess',
    description: 'Provides full access to AWS services and resources.',
    statements: [{ Effect: 'Allow', Action: '*', Resource: '*' }],
  },
  {
    id: 'ANPAI7XKCFMBPM3QQRRVQ',
    name: 'IAMFullAccess',
    description: 'Provides full access to IAM.',
    statements: [{ Effect: 'Allow', Action: 'iam:*', Resource: '*' }],
  },
  {
    id: 'ANPAIGDT4SV4GSETWTBZK',
    name: 'AmazonEC2ReadOnlyAccess',
    description: 'Provides read only access to Amazon EC2.',
    statements: [{ Effect: 'Allow', Action: 'ec2:Describe*', Resource: '*' }],
  },
  {
    id: 'ANPAI3VAJF5ZCRZ7MCQE6',
    name: 'AmazonEC2FullAccess',
    description: 'Provides full access to Amazon EC2.',
    statements: [{ Effect: 'Allow', Action: 'ec2:*', Resource: '*' }],
  },
];

/** Puts them into a new database. */
// biome-ignore lint/suspicious/noExplicitAny: a migration's database knows no tables.
export async function insertAwsPolicies(db: Kysely<any>): Promise<void> {
  const createdAt = Date.UTC(2015, 1, 6, 18, 39, 46);
  for (const { id, name, description, statements } of policies) {
    const arn = `arn:aws:iam::aws:policy/${name}`;
    const document = JSON.stringify({ Version: '2012-10-17', Statement: statements });
    await db
      .insertInto('iam_policies')
      .values({
        arn,
        id,
        account: 'aws',
        name,
        name_key: name.toLowerCase(),
        path: '/',
        description,
        default_version: 1,
        last_version: 1,
        created_at: createdAt,
        updated_at: createdAt,
      })
      .execute();
    await db.insertInto('iam_policy_versions').values({ arn, version: 1, document, created_at: createdAt }).execute();
  }
}
