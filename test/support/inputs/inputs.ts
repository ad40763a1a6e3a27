import type { World } from '../world.ts';

/** Makes the resources that an operation is about, and its input. */
export type Make = (world: World) => Promise<object> | object;
/** By operation. */
export type Inputs = Readonly<Record<string, Make>>;

export const nothing: Make = () => ({});
export const tags = [{ Key: 'team', Value: 'storage' }];

let count = 0;
export const next = (prefix: string) => `${prefix}${++count}`;
