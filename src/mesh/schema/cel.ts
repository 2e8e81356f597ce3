/**
 * The equivalent of a schema's refinement in CEL, which the API server checks custom resources with; added to the
 * schema by `.meta()`. The rule must hold for defaults too, which are checked before nested ones are filled in.
 *
 * @example z.strictObject({ … }).refine(one, { error: ONE }).meta(cel('has(self.a) != has(self.b)', ONE))
 */
export const cel = (rule: string, message: string) => ({ 'x-kubernetes-validations': [{ rule, message }] });

/** Several of them for one schema. */
export const rules = (...all: readonly ReturnType<typeof cel>[]): ReturnType<typeof cel> => ({
  'x-kubernetes-validations': all.flatMap((one) => one['x-kubernetes-validations']),
});
